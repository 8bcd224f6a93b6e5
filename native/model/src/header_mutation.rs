//! `extensions.filters.http.header_mutation.v3`: changes to headers and query parameters, one after the other.

use crate::matcher::StringMatcher;
use crate::{AppendAction, HeaderValueOption, Name};

/// The filter.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct HeaderMutation {
    pub mutations: Mutations,
    pub most_specific_header_mutations_wins: bool,
}

/// `Mutations`, of the filter or of a route.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Mutations {
    pub request: Vec<Mutation>,
    pub query_parameters: Vec<QueryMutation>,
    pub response: Vec<Mutation>,
}

/// `config.common.mutation_rules.v3.HeaderMutation`.
#[derive(Debug, Clone, PartialEq)]
pub enum Mutation {
    /// Lower case.
    Remove(Name),
    Append(HeaderValueOption),
    /// All headers whose names match.
    RemoveMatching(StringMatcher),
}

/// `config.core.v3.KeyValueMutation` of a query parameter.
#[derive(Debug, Clone, PartialEq)]
pub enum QueryMutation {
    Remove(Name),
    /// Text with access-log operators.
    Append {
        key: Name,
        value: Name,
        action: AppendAction,
    },
}
