//! Key sets, and the check of a token against one.

use aws_lc_rs::hmac;
use aws_lc_rs::signature::{self, RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey};
use serde_json::{Map, Value};

use crate::{Algorithm, Status, Token, decode};

/// The usable keys of a set.
#[derive(Debug, Clone, Default)]
pub struct Keys(Vec<Key>);

#[derive(Debug, Clone)]
struct Key {
    kid: String,
    /// Empty: any that fits the key.
    alg: String,
    material: Material,
}

#[derive(Debug, Clone)]
enum Material {
    /// Without leading zeros.
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// An uncompressed point.
    Ec {
        curve: Curve,
        point: Vec<u8>,
    },
    Oct(Vec<u8>),
    Ed25519(Vec<u8>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Curve {
    P256,
    P384,
    P521,
}

impl Keys {
    /// A JWKS document. Keys of no use are left out; with none left the set is refused.
    pub fn parse(document: &[u8]) -> Result<Self, Status> {
        let fields: Map<String, Value> =
            serde_json::from_slice(document).map_err(|_| Status::JwksParseError)?;
        let keys = fields.get("keys").ok_or(Status::JwksNoKeys)?;
        let keys = keys.as_array().ok_or(Status::JwksBadKeys)?;
        let keys: Vec<Key> = keys.iter().filter_map(key).collect();
        if keys.is_empty() {
            return Err(Status::JwksNoValidKeys);
        }
        Ok(Self(keys))
    }

    /// Whether one of the keys has signed the token.
    pub fn verify(&self, token: &Token) -> Result<(), Status> {
        let mut matched = false;
        let alg = token.header.get("alg").and_then(Value::as_str);
        let alg = alg.unwrap_or_default();
        for key in &self.0 {
            if !token.kid.is_empty() && !key.kid.is_empty() && key.kid != token.kid {
                continue;
            }
            if !key.alg.is_empty() && key.alg != alg {
                continue;
            }
            matched = true;
            if matches!(key.material, Material::Ed25519(_)) && token.signature.len() != 64 {
                return Err(Status::JwtEd25519SignatureWrongLength);
            }
            if key.material.has_signed(token) {
                return Ok(());
            }
        }
        Err(if matched {
            Status::JwtVerificationFail
        } else {
            Status::JwksKidAlgMismatch
        })
    }
}

fn key(value: &Value) -> Option<Key> {
    let fields = value.as_object()?;
    let text = |name: &str| match fields.get(name) {
        None => Some(""),
        Some(value) => value.as_str(),
    };
    let bytes = |name: &str| decode(fields.get(name)?.as_str()?);
    let mut alg = text("alg")?.to_owned();
    let material = match fields.get("kty")?.as_str()? {
        "RSA" => {
            if !(alg.is_empty() || alg.starts_with("RS") || alg.starts_with("PS")) {
                return None;
            }
            Material::Rsa {
                n: without_zeros(bytes("n")?),
                e: without_zeros(bytes("e")?),
            }
        }
        "EC" => {
            if !(alg.is_empty() || alg.starts_with("ES")) {
                return None;
            }
            let by_curve = match text("crv")? {
                "P-256" => Some((Curve::P256, "ES256")),
                "P-384" => Some((Curve::P384, "ES384")),
                "P-521" => Some((Curve::P521, "ES512")),
                "" => None,
                _ => return None,
            };
            let by_alg = match alg.as_str() {
                "ES256" => Some((Curve::P256, "ES256")),
                "ES384" => Some((Curve::P384, "ES384")),
                "ES512" => Some((Curve::P521, "ES512")),
                _ => None,
            };
            if by_curve.is_some() && by_alg.is_some() && by_curve != by_alg {
                return None;
            }
            let (curve, name) = by_curve.or(by_alg).unwrap_or((Curve::P256, "ES256"));
            name.clone_into(&mut alg);
            let size = match curve {
                Curve::P256 => 32,
                Curve::P384 => 48,
                Curve::P521 => 66,
            };
            let mut point = vec![4];
            for name in ["x", "y"] {
                let coordinate = without_zeros(bytes(name)?);
                point.resize(point.len() + size_less(size, coordinate.len())?, 0);
                point.extend_from_slice(&coordinate);
            }
            Material::Ec { curve, point }
        }
        "oct" => {
            if !(alg.is_empty() || alg.starts_with("HS")) {
                return None;
            }
            Material::Oct(bytes("k")?)
        }
        "OKP" => {
            if !(alg.is_empty() || alg == "EdDSA") || text("crv")? != "Ed25519" {
                return None;
            }
            let x = bytes("x")?;
            if x.len() != 32 {
                return None;
            }
            Material::Ed25519(x)
        }
        _ => return None,
    };
    Some(Key {
        kid: text("kid")?.to_owned(),
        alg,
        material,
    })
}

fn size_less(size: usize, used: usize) -> Option<usize> {
    size.checked_sub(used)
}

fn without_zeros(bytes: Vec<u8>) -> Vec<u8> {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    bytes.get(zeros..).unwrap_or_default().to_vec()
}

impl Material {
    fn has_signed(&self, token: &Token) -> bool {
        let (signed, signature) = (token.signed.as_bytes(), token.signature.as_slice());
        match (self, token.algorithm) {
            (Self::Rsa { n, e }, algorithm) => {
                let Some(parameters) = rsa(algorithm) else {
                    return false;
                };
                let key = RsaPublicKeyComponents { n, e };
                key.verify(parameters, signed, signature).is_ok()
            }
            (Self::Ec { curve, point }, algorithm) => {
                let verification: &dyn signature::VerificationAlgorithm = match (curve, algorithm) {
                    (Curve::P256, Algorithm::Es256) => &signature::ECDSA_P256_SHA256_FIXED,
                    (Curve::P384, Algorithm::Es384) => &signature::ECDSA_P384_SHA384_FIXED,
                    (Curve::P521, Algorithm::Es512) => &signature::ECDSA_P521_SHA512_FIXED,
                    _ => return false,
                };
                let key = UnparsedPublicKey::new(verification, point);
                key.verify(signed, signature).is_ok()
            }
            (Self::Oct(secret), algorithm) => {
                let algorithm = match algorithm {
                    Algorithm::Hs256 => hmac::HMAC_SHA256,
                    Algorithm::Hs384 => hmac::HMAC_SHA384,
                    Algorithm::Hs512 => hmac::HMAC_SHA512,
                    _ => return false,
                };
                let key = hmac::Key::new(algorithm, secret);
                hmac::verify(&key, signed, signature).is_ok()
            }
            (Self::Ed25519(x), Algorithm::EdDsa) => {
                let key = UnparsedPublicKey::new(&signature::ED25519, x);
                key.verify(signed, signature).is_ok()
            }
            (Self::Ed25519(_), _) => false,
        }
    }
}

fn rsa(algorithm: Algorithm) -> Option<&'static RsaParameters> {
    Some(match algorithm {
        Algorithm::Rs256 => &signature::RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY,
        Algorithm::Rs384 => &signature::RSA_PKCS1_2048_8192_SHA384,
        Algorithm::Rs512 => &signature::RSA_PKCS1_1024_8192_SHA512_FOR_LEGACY_USE_ONLY,
        Algorithm::Ps256 => &signature::RSA_PSS_2048_8192_SHA256,
        Algorithm::Ps384 => &signature::RSA_PSS_2048_8192_SHA384,
        Algorithm::Ps512 => &signature::RSA_PSS_2048_8192_SHA512,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine as _;

    fn token(secret: &[u8], header: &str, payload: &str) -> String {
        let encode = |bytes: &[u8]| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes);
        let signed = format!(
            "{}.{}",
            encode(header.as_bytes()),
            encode(payload.as_bytes())
        );
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let signature = hmac::sign(&key, signed.as_bytes());
        format!("{signed}.{}", encode(signature.as_ref()))
    }

    #[test]
    fn secrets_and_their_names() {
        let keys = br#"{"keys": [{"kty": "oct", "kid": "a", "alg": "HS256", "k": "c2VjcmV0"}, {"kty": "what"}]}"#;
        let keys = Keys::parse(keys).unwrap();
        let verify = |secret: &[u8], header: &str| {
            let token =
                Token::parse(&token(secret, header, r#"{"iss": "me", "aud": "x"}"#)).unwrap();
            keys.verify(&token)
        };
        assert_eq!(verify(b"secret", r#"{"alg": "HS256"}"#), Ok(()));
        assert_eq!(
            verify(b"other", r#"{"alg": "HS256", "kid": "a"}"#),
            Err(Status::JwtVerificationFail)
        );
        assert_eq!(
            verify(b"secret", r#"{"alg": "HS256", "kid": "b"}"#),
            Err(Status::JwksKidAlgMismatch)
        );
        assert_eq!(
            Keys::parse(br#"{"keys": [{"kty": "what"}]}"#).unwrap_err(),
            Status::JwksNoValidKeys
        );
    }
}
