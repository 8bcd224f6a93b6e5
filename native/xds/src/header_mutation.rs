//! `extensions.filters.http.header_mutation.v3`.

use tidegate_model::header_mutation::{HeaderMutation, Mutation, Mutations, QueryMutation};
use tidegate_model::{Name, format};

use crate::context::Result;
use crate::fields::Fields;
use crate::matcher;
use crate::message::Value;
use crate::route::{append_actions, header_value_option};

pub(crate) fn filter(fields: &Fields<'_>) -> Result<HeaderMutation> {
    Ok(HeaderMutation {
        mutations: fields.or_default("mutations", mutations)?,
        most_specific_header_mutations_wins: fields.bool("most_specific_header_mutations_wins"),
    })
}

pub(crate) fn per_route(fields: &Fields<'_>) -> Result<Mutations> {
    fields.or_default("mutations", mutations)
}

fn mutations(fields: &Fields<'_>) -> Result<Mutations> {
    const TRAILERS: &str = "trailers are not changed";
    fields.refuse("request_trailers_mutations", TRAILERS)?;
    fields.refuse("response_trailers_mutations", TRAILERS)?;
    Ok(Mutations {
        request: fields.each("request_mutations", mutation)?,
        query_parameters: fields.each("query_parameter_mutations", query_mutation)?,
        response: fields.each("response_mutations", mutation)?,
    })
}

fn mutation(fields: &Fields<'_>) -> Result<Mutation> {
    if let Some(option) = fields.opt("append", header_value_option)? {
        return Ok(Mutation::Append(option));
    }
    let matching = fields.opt("remove_on_match", |matching| {
        matching.need("key_matcher", matcher::string)
    })?;
    if let Some(matching) = matching {
        return Ok(Mutation::RemoveMatching(matching));
    }
    let name = matcher::lower(fields.str("remove"));
    if name.starts_with(':') || &*name == "host" {
        return Err(fields.fault("remove", ":-prefixed or host headers may not be removed"));
    }
    Ok(Mutation::Remove(name))
}

fn query_mutation(fields: &Fields<'_>) -> Result<QueryMutation> {
    let append = fields.opt("append", |append| {
        append.refuse("entry", "`record` is what there is now")?;
        let (key, value) = append.need("record", |record| {
            let value = record.opt("value", |value| {
                Ok(value
                    .get("string_value")
                    .and_then(Value::as_str)
                    .map(Name::from))
            })?;
            let Some(value) = value.flatten() else {
                return Err(record.fault("value", "only string value is allowed for record"));
            };
            format::parse(&value).map_err(|error| record.fault("value", error.to_string()))?;
            Ok((record.string("key"), value))
        })?;
        Ok(QueryMutation::Append {
            key,
            value,
            action: append.choice("action", append_actions())?,
        })
    })?;
    let remove = fields.opt_string("remove");
    match (append, remove) {
        (Some(append), None) => Ok(append),
        (None, Some(key)) => Ok(QueryMutation::Remove(key)),
        (Some(_), Some(_)) => Err(fields.here("Only one of 'append'/'remove can be specified.")),
        (None, None) => Err(fields.here("One of 'append'/'remove' must be specified.")),
    }
}
