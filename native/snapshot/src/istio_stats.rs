//! `istio.stats`, compiled: which labels each metric has, and where those that the configuration changes come from.

use tidegate_model::Name;
use tidegate_model::istio::{Expression, IstioStats, METRICS, MetricConfig, MetricKind, PeerField};

use crate::error::CompileError;
use crate::format::Formatter;

/// A standard metric, as a place in [`METRICS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Metric {
    RequestsTotal = 0,
    RequestDuration = 1,
    RequestBytes = 2,
    ResponseBytes = 3,
    RequestMessages = 4,
    ResponseMessages = 5,
    ConnectionsOpened = 6,
    ConnectionsClosed = 7,
    SentBytes = 8,
    ReceivedBytes = 9,
}

/// The labels that metrics may have by themselves.
pub const LABELS: [&str; 25] = [
    "reporter",
    "source_workload",
    "source_workload_namespace",
    "source_principal",
    "source_app",
    "source_version",
    "source_canonical_service",
    "source_canonical_revision",
    "source_cluster",
    "destination_workload",
    "destination_workload_namespace",
    "destination_principal",
    "destination_app",
    "destination_version",
    "destination_service",
    "destination_service_name",
    "destination_service_namespace",
    "destination_canonical_service",
    "destination_canonical_revision",
    "destination_cluster",
    "request_protocol",
    "response_flags",
    "connection_security_policy",
    "response_code",
    "grpc_response_status",
];

/// See the module.
#[derive(Debug)]
pub struct CompiledIstioStats {
    pub config: std::sync::Arc<IstioStats>,
    /// What the values of changed and added labels, and of own metrics, come from.
    pub expressions: Vec<CompiledExpression>,
    /// `None`: the metric is dropped.
    plans: [Option<Plan>; METRICS.len()],
    pub own: Vec<OwnMetric>,
}

/// What becomes of a metric's labels.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// By name of a label of its own: gone, or with the value of an expression.
    changed: Vec<(Name, Option<usize>)>,
    /// Further labels, and the expressions of their values.
    pub added: Vec<(Name, usize)>,
}

/// A metric of the configuration's own.
#[derive(Debug)]
pub struct OwnMetric {
    /// Without `istio_`.
    pub name: Name,
    pub kind: MetricKind,
    pub value: usize,
    pub labels: Vec<(Name, usize)>,
}

#[derive(Debug)]
pub enum CompiledExpression {
    Format(Formatter),
    Peer { downstream: bool, field: PeerField },
}

/// What the plan says of a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Label {
    Own,
    Expression(usize),
    Gone,
}

impl Plan {
    /// What becomes of a label of the metric's own.
    pub fn label(&self, name: &str) -> Label {
        match self.changed.iter().find(|(changed, _)| &**changed == name) {
            None => Label::Own,
            Some((_, Some(expression))) => Label::Expression(*expression),
            Some((_, None)) => Label::Gone,
        }
    }

    fn change(&mut self, name: &Name, to: Option<usize>) {
        match self.changed.iter_mut().find(|(known, _)| known == name) {
            Some((_, old)) => *old = to,
            None => self.changed.push((Name::clone(name), to)),
        }
    }
}

impl CompiledIstioStats {
    pub(crate) fn compile(config: &std::sync::Arc<IstioStats>) -> Result<Self, CompileError> {
        let mut compiled = Self {
            config: std::sync::Arc::clone(config),
            expressions: Vec::new(),
            plans: std::array::from_fn(|_| Some(Plan::default())),
            own: Vec::new(),
        };
        let mut known = Vec::new();
        for (at, definition) in config.definitions.iter().enumerate() {
            let value = compiled
                .expression(&mut known, &definition.value)
                .map_err(|e| e.within(&format!("definitions[{at}].value")))?;
            // The first of a name counts.
            if compiled.own.iter().all(|own| own.name != definition.name) {
                compiled.own.push(OwnMetric {
                    name: Name::clone(&definition.name),
                    kind: definition.kind,
                    value,
                    labels: Vec::new(),
                });
            }
        }
        for (at, metric) in config.metrics.iter().enumerate() {
            compiled
                .apply(&mut known, metric)
                .map_err(|e| e.within(&format!("metrics[{at}]")))?;
        }
        Ok(compiled)
    }

    fn apply(
        &mut self,
        known: &mut Vec<Expression>,
        metric: &MetricConfig,
    ) -> Result<(), CompileError> {
        let concerns = |name: &str| metric.name.as_ref().is_none_or(|wanted| &**wanted == name);
        if metric.drop {
            // Only by name.
            for (plan, name) in self.plans.iter_mut().zip(METRICS) {
                if metric.name.is_some() && concerns(name) {
                    *plan = None;
                }
            }
            return Ok(());
        }
        for label in &metric.tags_to_remove {
            if LABELS.contains(&&**label) {
                for (plan, name) in self.plans.iter_mut().zip(METRICS) {
                    if let Some(plan) = plan.as_mut().filter(|_| concerns(name)) {
                        plan.change(label, None);
                    }
                }
            }
        }
        let mut dimensions: Vec<_> = metric.dimensions.iter().collect();
        dimensions.sort_by(|(a, _), (b, _)| a.cmp(b));
        for (label, expression) in dimensions {
            let value = self
                .expression(known, expression)
                .map_err(|e| e.within(&format!("dimensions[\"{label}\"]")))?;
            let standard = LABELS.contains(&&**label);
            for (plan, name) in self.plans.iter_mut().zip(METRICS) {
                match plan.as_mut().filter(|_| concerns(name)) {
                    Some(plan) if standard => plan.change(label, Some(value)),
                    Some(plan) => plan.added.push((Name::clone(label), value)),
                    None => {}
                }
            }
            for own in &mut self.own {
                if concerns(&own.name) {
                    own.labels.push((Name::clone(label), value));
                }
            }
        }
        Ok(())
    }

    /// The place of an expression; the same text is evaluated once.
    fn expression(
        &mut self,
        known: &mut Vec<Expression>,
        expression: &Expression,
    ) -> Result<usize, CompileError> {
        if let Some(at) = known.iter().position(|other| other == expression) {
            return Ok(at);
        }
        let format = |text: &str| {
            Formatter::compile(text)
                .map(CompiledExpression::Format)
                .map_err(|e| CompileError::new("", e.reason))
        };
        self.expressions.push(match expression {
            Expression::Text(text) => format(&text.replace('%', "%%"))?,
            Expression::Format(text) => format(text)?,
            Expression::Peer { downstream, field } => CompiledExpression::Peer {
                downstream: *downstream,
                field: field.clone(),
            },
        });
        known.push(expression.clone());
        Ok(known.len() - 1)
    }

    /// `None`: the metric is dropped.
    #[inline]
    pub fn plan(&self, metric: Metric) -> Option<&Plan> {
        self.plans.get(metric as usize)?.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overrides() {
        let text = |text: &str| Expression::Text(text.into());
        let metric = |name: Option<&str>| MetricConfig {
            name: name.map(Name::from),
            drop: false,
            tags_to_remove: Vec::new(),
            dimensions: Vec::new(),
        };
        let config = std::sync::Arc::new(IstioStats {
            metrics: vec![
                MetricConfig {
                    tags_to_remove: vec!["source_app".into(), "unknown".into()],
                    ..metric(None)
                },
                MetricConfig {
                    dimensions: vec![
                        ("z".into(), text("1")),
                        ("a".into(), text("2")),
                        ("response_code".into(), text("1")),
                    ],
                    ..metric(Some("requests_total"))
                },
                MetricConfig {
                    drop: true,
                    ..metric(Some("request_bytes"))
                },
            ],
            ..IstioStats::default()
        });
        let compiled = CompiledIstioStats::compile(&config).unwrap();
        let plan = compiled.plan(Metric::RequestsTotal).unwrap();
        assert_eq!(plan.label("source_app"), Label::Gone);
        assert_eq!(plan.label("response_code"), Label::Expression(1));
        assert_eq!(plan.label("reporter"), Label::Own);
        assert_eq!(plan.added, [("a".into(), 0), ("z".into(), 1)]);
        assert_eq!(compiled.plan(Metric::RequestBytes), None);
        let other = compiled.plan(Metric::SentBytes).unwrap();
        assert_eq!(other.label("source_app"), Label::Gone);
        assert!(other.added.is_empty());
    }
}
