//! What a proxy of the mesh tells of its workload: the node metadata that telemetry needs.
//!
//! On the wire it is a `google.protobuf.Struct` with the names of the node metadata (`NAMESPACE`, `WORKLOAD_NAME`, `LABELS`,
//! …), in base64 as the value of `x-envoy-peer-metadata`, or W3C baggage. Source: Istio's `metadata_object`.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use prost::Message as _;
use prost_types::{Struct, Value, value::Kind};

const CANONICAL_NAME: &str = "service.istio.io/canonical-name";
const CANONICAL_REVISION: &str = "service.istio.io/canonical-revision";
const OWNER_PREFIX: &str = "kubernetes://apis/apps/v1/namespaces/";

/// Padding or none, as the peer likes.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What owns the pod, as far as telemetry tells it apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WorkloadKind {
    #[default]
    Unknown,
    Pod,
    Deployment,
    Job,
    CronJob,
}

impl WorkloadKind {
    pub const fn name(self) -> Option<&'static str> {
        match self {
            Self::Unknown => None,
            Self::Pod => Some("pod"),
            Self::Deployment => Some("deployment"),
            Self::Job => Some("job"),
            Self::CronJob => Some("cronjob"),
        }
    }

    fn named(name: &str) -> Self {
        match name {
            "pod" => Self::Pod,
            "deployment" => Self::Deployment,
            "job" => Self::Job,
            "cronjob" => Self::CronJob,
            _ => Self::Unknown,
        }
    }

    /// From `OWNER`: `…/deployments/NAME`.
    fn of_owner(owner: &str, workload: &str) -> Self {
        let Some(end) = owner.len().checked_sub(workload.len() + 2) else {
            return Self::Unknown;
        };
        match owner.get(..end).and_then(|head| head.rsplit_once('/')) {
            Some((_, kind)) => Self::named(kind),
            None => Self::Unknown,
        }
    }
}

/// A workload. Empty: not told.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Peer {
    pub instance: String,
    pub cluster: String,
    pub namespace: String,
    pub workload: String,
    pub canonical_name: String,
    pub canonical_revision: String,
    pub app: String,
    pub version: String,
    pub kind: WorkloadKind,
    pub identity: String,
    pub region: String,
    pub zone: String,
    /// The labels that the configuration asks for beyond those above.
    pub labels: Vec<(String, String)>,
}

impl Peer {
    /// From node metadata, or what a peer sent; `additional`: which other labels are of interest.
    pub fn of_metadata<'m>(
        fields: impl IntoIterator<Item = (&'m str, &'m str)>,
        labels: impl IntoIterator<Item = (&'m str, &'m str)>,
        additional: &[impl AsRef<str>],
    ) -> Self {
        let mut peer = Self::default();
        let mut owner = "";
        for (key, text) in fields {
            let field = match key {
                "NAME" => &mut peer.instance,
                "NAMESPACE" => &mut peer.namespace,
                "WORKLOAD_NAME" => &mut peer.workload,
                "CLUSTER_ID" => &mut peer.cluster,
                "IDENTITY" => &mut peer.identity,
                "REGION" => &mut peer.region,
                "AVAILABILITY_ZONE" => &mut peer.zone,
                "OWNER" => {
                    owner = text;
                    continue;
                }
                _ => continue,
            };
            text.clone_into(field);
        }
        let (mut qualified_app, mut qualified_version) = ("", "");
        for (key, text) in labels {
            match key {
                CANONICAL_NAME => text.clone_into(&mut peer.canonical_name),
                CANONICAL_REVISION => text.clone_into(&mut peer.canonical_revision),
                "app.kubernetes.io/name" => qualified_app = text,
                "app" => text.clone_into(&mut peer.app),
                "app.kubernetes.io/version" => qualified_version = text,
                "version" => text.clone_into(&mut peer.version),
                other if additional.iter().any(|label| label.as_ref() == other) => {
                    peer.labels.push((key.to_owned(), text.to_owned()));
                }
                _ => {}
            }
        }
        if !qualified_app.is_empty() {
            qualified_app.clone_into(&mut peer.app);
        }
        if !qualified_version.is_empty() {
            qualified_version.clone_into(&mut peer.version);
        }
        peer.kind = WorkloadKind::of_owner(owner, &peer.workload);
        peer
    }

    pub(crate) fn of_struct(metadata: &Struct, additional: &[impl AsRef<str>]) -> Self {
        let labels = match metadata.fields.get("LABELS").map(|value| &value.kind) {
            Some(Some(Kind::StructValue(labels))) => Some(labels),
            _ => None,
        };
        Self::of_metadata(
            texts(metadata),
            labels.into_iter().flat_map(texts),
            additional,
        )
    }

    /// As it goes to peers.
    pub(crate) fn to_struct(&self) -> Struct {
        let mut metadata = Struct::default();
        let mut put = |key: &str, value: &str| {
            if !value.is_empty() {
                metadata.fields.insert(key.to_owned(), text(value));
            }
        };
        put("NAME", &self.instance);
        put("NAMESPACE", &self.namespace);
        put("WORKLOAD_NAME", &self.workload);
        put("CLUSTER_ID", &self.cluster);
        put("IDENTITY", &self.identity);
        put("REGION", &self.region);
        put("AVAILABILITY_ZONE", &self.zone);
        if let Some(kind) = self.kind.name() {
            let (namespace, workload) = (&self.namespace, &self.workload);
            put(
                "OWNER",
                &format!("{OWNER_PREFIX}{namespace}/{kind}s/{workload}"),
            );
        }
        let mut labels = Struct::default();
        let named = [
            (CANONICAL_NAME, &self.canonical_name),
            (CANONICAL_REVISION, &self.canonical_revision),
            ("app", &self.app),
            ("version", &self.version),
        ];
        for (key, value) in named {
            if !value.is_empty() {
                labels.fields.insert(key.to_owned(), text(value));
            }
        }
        for (key, value) in &self.labels {
            labels.fields.insert(key.clone(), text(value));
        }
        let labels = Value {
            kind: Some(Kind::StructValue(labels)),
        };
        metadata.fields.insert("LABELS".to_owned(), labels);
        metadata
    }

    /// The value of `x-envoy-peer-metadata`.
    pub fn to_header(&self) -> String {
        // Maps are encoded in the order of their keys.
        BASE64.encode(self.to_struct().encode_to_vec())
    }

    /// From the value of `x-envoy-peer-metadata`; `None`: it is not one.
    pub fn of_header(value: &[u8], additional: &[impl AsRef<str>]) -> Option<Self> {
        // Envoy's decoder gives nothing for what is no base64, and nothing is an empty message.
        let bytes = BASE64.decode(value).unwrap_or_default();
        let metadata = Struct::decode(bytes.as_slice()).ok()?;
        Some(Self::of_struct(&metadata, additional))
    }

    /// From an endpoint's `istio.workload`: `WORKLOAD;NAMESPACE;CANONICAL NAME;REVISION;CLUSTER`.
    pub fn of_endpoint(text: &str) -> Option<Self> {
        let mut parts = text.split(';').map(str::to_owned);
        let mut next = || parts.next();
        Some(Self {
            workload: next()?,
            namespace: next()?,
            canonical_name: next()?,
            canonical_revision: next()?,
            cluster: next()?,
            ..Self::default()
        })
    }

    /// The value of a `baggage` header.
    pub fn to_baggage(&self) -> String {
        let mut out = String::new();
        let mut put = |key: &str, value: &str| {
            if !value.is_empty() {
                if !out.is_empty() {
                    out.push(',');
                }
                out.push_str(key);
                out.push('=');
                out.push_str(value);
            }
        };
        let kind = self.kind.name().unwrap_or("pod");
        put(&format!("k8s.{kind}.name"), &self.workload);
        put("service.name", &self.canonical_name);
        if self.app != self.canonical_name {
            put("app.name", &self.app);
        }
        put("service.version", &self.canonical_revision);
        if self.version != self.canonical_revision {
            put("app.version", &self.version);
        }
        put("k8s.namespace.name", &self.namespace);
        put("k8s.cluster.name", &self.cluster);
        put("k8s.instance.name", &self.instance);
        put("cloud.region", &self.region);
        put("cloud.availability_zone", &self.zone);
        out
    }

    /// From the value of a `baggage` header. Keys that are not known say nothing.
    pub fn of_baggage(text: &str) -> Self {
        let mut peer = Self::default();
        for property in text.split(',') {
            let (key, value) = property.split_once('=').unwrap_or((property, ""));
            // As Envoy: a value ends where the next `=` would split it.
            let value = value.split('=').next().unwrap_or_default();
            let set = |field: &mut String| value.clone_into(field);
            match key {
                "k8s.namespace.name" => set(&mut peer.namespace),
                "k8s.cluster.name" => set(&mut peer.cluster),
                "service.name" => {
                    set(&mut peer.canonical_name);
                    if peer.app.is_empty() {
                        set(&mut peer.app);
                    }
                }
                "service.version" => {
                    set(&mut peer.canonical_revision);
                    if peer.version.is_empty() {
                        set(&mut peer.version);
                    }
                }
                "app.name" => {
                    set(&mut peer.app);
                    if peer.canonical_name.is_empty() {
                        set(&mut peer.canonical_name);
                    }
                }
                "app.version" => {
                    set(&mut peer.version);
                    if peer.canonical_revision.is_empty() {
                        set(&mut peer.canonical_revision);
                    }
                }
                "k8s.instance.name" => set(&mut peer.instance),
                "cloud.region" => set(&mut peer.region),
                "cloud.availability_zone" => set(&mut peer.zone),
                "k8s.deployment.name" | "k8s.pod.name" | "k8s.cronjob.name" | "k8s.job.name" => {
                    set(&mut peer.workload);
                    peer.kind = WorkloadKind::named(key.split('.').nth(1).unwrap_or_default());
                }
                _ => {}
            }
        }
        peer
    }

    /// A field by the name that `%FILTER_STATE(…_peer_obj:FIELD:name)%` and expressions use.
    pub fn field(&self, name: &str) -> Option<&str> {
        Some(match name {
            "namespace" => &self.namespace,
            "cluster" => &self.cluster,
            "service" => &self.canonical_name,
            "revision" => &self.canonical_revision,
            "app" => &self.app,
            "version" => &self.version,
            "workload" => &self.workload,
            "type" => self.kind.name().unwrap_or("unknown"),
            "name" => &self.instance,
            "region" => &self.region,
            "availability_zone" => &self.zone,
            _ => return None,
        })
    }
}

fn texts(fields: &Struct) -> impl Iterator<Item = (&str, &str)> {
    let fields = fields.fields.iter();
    fields.map(|(key, value)| (&**key, text_of(value)))
}

fn text_of(value: &Value) -> &str {
    match &value.kind {
        Some(Kind::StringValue(text)) => text,
        _ => "",
    }
}

pub(crate) fn text(value: &str) -> Value {
    Value {
        kind: Some(Kind::StringValue(value.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn productpage() -> Peer {
        Peer {
            instance: "productpage-v1-0".to_owned(),
            cluster: "Kubernetes".to_owned(),
            namespace: "bookinfo".to_owned(),
            workload: "productpage-v1".to_owned(),
            canonical_name: "productpage".to_owned(),
            canonical_revision: "v1".to_owned(),
            app: "productpage".to_owned(),
            version: "v1".to_owned(),
            kind: WorkloadKind::Deployment,
            ..Peer::default()
        }
    }

    #[test]
    fn a_header_and_back() {
        let peer = productpage();
        let header = peer.to_header();
        assert_eq!(Peer::of_header(header.as_bytes(), &[""; 0]), Some(peer));
        let unpadded = header.trim_end_matches('=');
        assert!(Peer::of_header(unpadded.as_bytes(), &[""; 0]).is_some());
    }

    #[test]
    fn the_header_is_the_struct_in_the_order_of_its_keys() {
        let peer = Peer {
            namespace: "ns".to_owned(),
            ..Peer::default()
        };
        // fields { key: "LABELS" value { struct_value {} } } fields { key: "NAMESPACE" value { string_value: "ns" } }
        let bytes =
            b"\x0a\x0c\x0a\x06LABELS\x12\x02\x2a\x00\x0a\x11\x0a\x09NAMESPACE\x12\x04\x1a\x02ns";
        assert_eq!(peer.to_header(), BASE64.encode(bytes));
    }

    #[test]
    fn baggage_and_back() {
        let peer = productpage();
        assert_eq!(
            peer.to_baggage(),
            "k8s.deployment.name=productpage-v1,service.name=productpage,service.version=v1,\
             k8s.namespace.name=bookinfo,k8s.cluster.name=Kubernetes,k8s.instance.name=productpage-v1-0"
        );
        assert_eq!(Peer::of_baggage(&peer.to_baggage()), peer);
    }

    #[test]
    fn endpoints_tell_their_workload() {
        let peer = Peer::of_endpoint("details-v1;bookinfo;details;v1;Kubernetes").unwrap();
        assert_eq!(
            (&*peer.workload, &*peer.cluster),
            ("details-v1", "Kubernetes")
        );
        assert_eq!(Peer::of_endpoint("details-v1;bookinfo"), None);
    }

    #[test]
    fn owners() {
        let owner = "kubernetes://apis/apps/v1/namespaces/bookinfo/deployments/productpage-v1";
        assert_eq!(
            WorkloadKind::of_owner(owner, "productpage-v1"),
            WorkloadKind::Deployment
        );
        assert_eq!(WorkloadKind::of_owner("x", "xyz"), WorkloadKind::Unknown);
    }
}
