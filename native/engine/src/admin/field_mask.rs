//! `google.protobuf.FieldMask` on JSON: what a mask names stays, all else goes.

use serde_json::{Map, Value};

/// A mask, taken apart: a name may have a mask below it.
#[derive(Debug, Default)]
pub(super) struct FieldMask {
    fields: Vec<(String, FieldMask)>,
}

impl FieldMask {
    /// `a.b,c`.
    pub(super) fn parse(text: &str) -> Self {
        let mut mask = Self::default();
        for path in text.split(',').filter(|path| !path.is_empty()) {
            let mut at = &mut mask;
            for name in path.split('.') {
                let index = match at.fields.iter().position(|(known, _)| known == name) {
                    Some(index) => index,
                    None => {
                        at.fields.push((name.to_owned(), Self::default()));
                        at.fields.len() - 1
                    }
                };
                let Some((_, below)) = at.fields.get_mut(index) else {
                    break;
                };
                at = below;
            }
        }
        mask
    }

    /// What of the value the mask names. The type of an `Any` stays with its fields.
    pub(super) fn apply(&self, value: &Value) -> Value {
        if self.fields.is_empty() {
            return value.clone();
        }
        match value {
            Value::Object(object) => {
                let mut kept = Map::new();
                for (key, below) in object {
                    if key == "@type" {
                        kept.insert(key.clone(), below.clone());
                    } else if let Some((_, mask)) = self.fields.iter().find(|(name, _)| name == key)
                    {
                        kept.insert(key.clone(), mask.apply(below));
                    }
                }
                Value::Object(kept)
            }
            Value::Array(items) => {
                Value::Array(items.iter().map(|item| self.apply(item)).collect())
            }
            other => other.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_named_stays() {
        let value =
            json!({ "a": { "b": 1, "c": 2 }, "d": [{ "@type": "t", "e": 3, "f": 4 }], "g": 5 });
        let masked = FieldMask::parse("a.b,d.e").apply(&value);
        assert_eq!(
            masked,
            json!({ "a": { "b": 1 }, "d": [{ "@type": "t", "e": 3 }] })
        );
    }
}
