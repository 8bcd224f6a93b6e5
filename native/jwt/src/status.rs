//! What there may be wrong with a token or a key set, with the texts that clients and logs know from Envoy.

macro_rules! statuses {
    ($($(#[$doc:meta])* $name:ident $text:literal,)*) => {
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Status {
            $($(#[$doc])* $name,)*
        }

        impl Status {
            /// Envoy's number of it.
            pub const fn code(self) -> u32 {
                match self {
                    // Others of key sets stand between, which are not told apart here.
                    Self::JwksFetchFail => 40,
                    _ => self as u32 + 1,
                }
            }

            /// The text of an answer.
            pub const fn text(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

statuses! {
    JwtMissed "Jwt is missing",
    JwtNotYetValid "Jwt not yet valid",
    JwtExpired "Jwt is expired",
    JwtBadFormat "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections",
    JwtHeaderParseErrorBadBase64 "Jwt header is an invalid Base64url encoded",
    JwtHeaderParseErrorBadJson "Jwt header is an invalid JSON",
    JwtHeaderBadAlg "Jwt header [alg] field is required and must be a string",
    JwtHeaderNotImplementedAlg "Jwt header [alg] is not supported",
    JwtHeaderBadKid "Jwt header [kid] field is not a string",
    JwtPayloadParseErrorBadBase64 "Jwt payload is an invalid Base64url encoded",
    JwtEd25519SignatureWrongLength "Jwt ED25519 signature is wrong length",
    JwtPayloadParseErrorBadJson "Jwt payload is an invalid JSON",
    JwtPayloadParseErrorIssNotString "Jwt payload [iss] field is not a string",
    JwtPayloadParseErrorSubNotString "Jwt payload [sub] field is not a string",
    JwtPayloadParseErrorIatNotInteger "Jwt payload [iat] field is not an integer",
    JwtPayloadParseErrorIatOutOfRange "Jwt payload [iat] field is not a positive 64 bit integer",
    JwtPayloadParseErrorNbfNotInteger "Jwt payload [nbf] field is not an integer",
    JwtPayloadParseErrorNbfOutOfRange "Jwt payload [nbf] field is not a positive 64 bit integer",
    JwtPayloadParseErrorExpNotInteger "Jwt payload [exp] field is not an integer",
    JwtPayloadParseErrorExpOutOfRange "Jwt payload [exp] field is not a positive 64 bit integer",
    JwtPayloadParseErrorJtiNotString "Jwt payload [jti] field is not a string",
    JwtPayloadParseErrorAudNotString "Jwt payload [aud] field is not a string or string list",
    JwtSignatureParseErrorBadBase64 "Jwt signature is an invalid Base64url encoded",
    JwtUnknownIssuer "Jwt issuer is not configured",
    JwtAudienceNotAllowed "Audiences in Jwt are not allowed",
    JwtVerificationFail "Jwt verification fails",
    JwtMultipleTokens "Found multiple Jwt tokens",
    JwksParseError "Jwks is an invalid JSON",
    JwksNoKeys "Jwks does not have [keys] field",
    JwksBadKeys "[keys] in Jwks is not an array",
    JwksNoValidKeys "Jwks doesn't have any valid public key",
    JwksKidAlgMismatch "Jwks doesn't have key to match kid or alg from Jwt",
    JwksFetchFail "Jwks remote fetch is failed",
}
