//! A token out of its text.

use serde_json::{Map, Value};

use crate::{Status, decode};

/// `alg`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    Es256,
    Es384,
    Es512,
    Hs256,
    Hs384,
    Hs512,
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    EdDsa,
}

impl Algorithm {
    pub(crate) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "ES256" => Self::Es256,
            "ES384" => Self::Es384,
            "ES512" => Self::Es512,
            "HS256" => Self::Hs256,
            "HS384" => Self::Hs384,
            "HS512" => Self::Hs512,
            "RS256" => Self::Rs256,
            "RS384" => Self::Rs384,
            "RS512" => Self::Rs512,
            "PS256" => Self::Ps256,
            "PS384" => Self::Ps384,
            "PS512" => Self::Ps512,
            "EdDSA" => Self::EdDsa,
            _ => return None,
        })
    }
}

/// A token that reads well; whether it is genuine is another question.
#[derive(Debug, Clone)]
pub struct Token {
    pub header: Map<String, Value>,
    pub payload: Map<String, Value>,
    /// As it stands in the token.
    pub payload_base64: String,
    pub algorithm: Algorithm,
    /// Empty: none.
    pub kid: String,
    pub iss: String,
    pub sub: String,
    pub audiences: Vec<String>,
    /// Seconds since 1970; 0: none.
    pub iat: u64,
    pub nbf: u64,
    pub exp: u64,
    pub(crate) signed: String,
    pub(crate) signature: Vec<u8>,
}

impl Token {
    pub fn parse(text: &str) -> Result<Self, Status> {
        let mut parts = text.split('.');
        let (Some(header), Some(payload), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Status::JwtBadFormat);
        };
        if [header, payload, signature]
            .iter()
            .any(|part| part.is_empty())
        {
            return Err(Status::JwtBadFormat);
        }
        let bytes = decode(header).ok_or(Status::JwtHeaderParseErrorBadBase64)?;
        let fields: Map<String, Value> =
            serde_json::from_slice(&bytes).map_err(|_| Status::JwtHeaderParseErrorBadJson)?;
        let algorithm = fields.get("alg").and_then(Value::as_str);
        let algorithm = Algorithm::named(algorithm.ok_or(Status::JwtHeaderBadAlg)?)
            .ok_or(Status::JwtHeaderNotImplementedAlg)?;
        let kid = text_of(&fields, "kid", Status::JwtHeaderBadKid)?;
        let bytes = decode(payload).ok_or(Status::JwtPayloadParseErrorBadBase64)?;
        let claims: Map<String, Value> =
            serde_json::from_slice(&bytes).map_err(|_| Status::JwtPayloadParseErrorBadJson)?;
        let iss = text_of(&claims, "iss", Status::JwtPayloadParseErrorIssNotString)?;
        let sub = text_of(&claims, "sub", Status::JwtPayloadParseErrorSubNotString)?;
        let iat = number_of(
            &claims,
            "iat",
            Status::JwtPayloadParseErrorIatNotInteger,
            Status::JwtPayloadParseErrorIatOutOfRange,
        )?;
        let nbf = number_of(
            &claims,
            "nbf",
            Status::JwtPayloadParseErrorNbfNotInteger,
            Status::JwtPayloadParseErrorNbfOutOfRange,
        )?;
        let exp = number_of(
            &claims,
            "exp",
            Status::JwtPayloadParseErrorExpNotInteger,
            Status::JwtPayloadParseErrorExpOutOfRange,
        )?;
        text_of(&claims, "jti", Status::JwtPayloadParseErrorJtiNotString)?;
        let audiences = audiences_of(&claims)?;
        let signature = decode(signature).ok_or(Status::JwtSignatureParseErrorBadBase64)?;
        Ok(Self {
            payload_base64: payload.to_owned(),
            signed: format!("{header}.{payload}"),
            header: fields,
            payload: claims,
            algorithm,
            kid,
            iss,
            sub,
            audiences,
            iat,
            nbf,
            exp,
            signature,
        })
    }

    /// Whether it is valid at that time, give or take `skew` seconds.
    pub fn check_time(&self, now: u64, skew: u64) -> Result<(), Status> {
        if self.nbf > now.saturating_add(skew) {
            return Err(Status::JwtNotYetValid);
        }
        if self.exp > 0 && now > self.exp.saturating_add(skew) {
            return Err(Status::JwtExpired);
        }
        Ok(())
    }

    /// Whether it names one of these audiences; no list allows all. As Envoy compares: without scheme and trailing slash.
    pub fn names_audience<'a>(&self, mut allowed: impl Iterator<Item = &'a str>) -> bool {
        allowed.any(|wanted| {
            let wanted = bare(wanted);
            self.audiences.iter().any(|named| bare(named) == wanted)
        })
    }
}

/// An audience as it is compared.
fn bare(audience: &str) -> &str {
    let audience = audience
        .strip_prefix("http://")
        .or_else(|| audience.strip_prefix("https://"))
        .unwrap_or(audience);
    audience.strip_suffix('/').unwrap_or(audience)
}

fn text_of(fields: &Map<String, Value>, name: &str, wrong: Status) -> Result<String, Status> {
    match fields.get(name) {
        None => Ok(String::new()),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(_) => Err(wrong),
    }
}

fn number_of(
    fields: &Map<String, Value>,
    name: &str,
    wrong: Status,
    out_of_range: Status,
) -> Result<u64, Status> {
    match fields.get(name) {
        None => Ok(0),
        Some(Value::Number(number)) => {
            let value = number.as_f64().unwrap_or(f64::NAN);
            if (0.0..=9_223_372_036_854_775_807.0).contains(&value) {
                Ok(value as u64)
            } else {
                Err(out_of_range)
            }
        }
        Some(_) => Err(wrong),
    }
}

fn audiences_of(claims: &Map<String, Value>) -> Result<Vec<String>, Status> {
    let wrong = Status::JwtPayloadParseErrorAudNotString;
    match claims.get("aud") {
        None => Ok(Vec::new()),
        Some(Value::String(one)) => Ok(vec![one.clone()]),
        Some(Value::Array(all)) => all
            .iter()
            .map(|one| one.as_str().map(str::to_owned).ok_or(wrong))
            .collect(),
        Some(_) => Err(wrong),
    }
}
