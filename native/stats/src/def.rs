//! What a group consists of, and the typed identifiers of its metrics.

use std::marker::PhantomData;

/// The metrics of one kind of group.
#[derive(Debug)]
pub struct GroupDef {
    /// Tells definitions apart that share a prefix.
    pub id: &'static str,
    pub counters: &'static [Metric],
    pub gauges: &'static [Metric],
    pub histograms: &'static [Metric],
    /// Families of counters by HTTP status: the name is what goes before `200` and `2xx`.
    pub codes: &'static [Metric],
    pub texts: &'static [Metric],
}

/// One metric of a definition.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// Below the group's prefix.
    pub name: &'static str,
    /// Does not exist (is not printed) before it was first used, as metrics that Envoy creates on demand.
    pub on_demand: bool,
}

/// Implemented by the marker type of a group, so that its metrics cannot be counted in another group.
pub trait Def: 'static {
    const DEF: &'static GroupDef;
}

macro_rules! identifiers {
    ($($(#[$doc:meta])* $name:ident)*) => {$(
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $name<G> {
            pub(crate) index: u16,
            group: PhantomData<fn() -> G>,
        }

        impl<G> $name<G> {
            #[doc(hidden)]
            pub const fn new(index: u16) -> Self {
                Self { index, group: PhantomData }
            }
        }

        impl<G> Clone for $name<G> {
            fn clone(&self) -> Self {
                *self
            }
        }

        impl<G> Copy for $name<G> {}
    )*};
}

identifiers! {
    /// Only grows.
    Counter
    /// Goes up and down.
    Gauge
    /// A distribution of integers (milliseconds, mostly).
    Histogram
    /// A family of counters by HTTP status.
    Codes
    /// A text readout.
    Text
}

/// Defines a group: a marker type, and one constant per metric.
///
/// ```text
/// group! {
///     /// `tcp.PREFIX.`
///     TcpProxy "tcp" {
///         counters { DOWNSTREAM_CX_TOTAL "downstream_cx_total", }
///         gauges {}
///         histograms {}
///         codes {}
///         texts {}
///     }
/// }
/// ```
///
/// `NAME? "name"` makes a metric appear only once it was used.
macro_rules! group {
    (
        $(#[$doc:meta])*
        $group:ident $id:literal {
            counters { $($counter:ident $(? $counter_lazy:literal)? $($counter_name:literal)?,)* }
            gauges { $($gauge:ident $(? $gauge_lazy:literal)? $($gauge_name:literal)?,)* }
            histograms { $($histogram:ident $(? $histogram_lazy:literal)? $($histogram_name:literal)?,)* }
            codes { $($codes:ident $(? $codes_lazy:literal)? $($codes_name:literal)?,)* }
            texts { $($text:ident $(? $text_lazy:literal)? $($text_name:literal)?,)* }
        }
    ) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy)]
        pub struct $group;

        impl $crate::def::Def for $group {
            const DEF: &'static $crate::def::GroupDef = &$crate::def::GroupDef {
                id: $id,
                counters: &[$($crate::def::metric!($(? $counter_lazy)? $($counter_name)?)),*],
                gauges: &[$($crate::def::metric!($(? $gauge_lazy)? $($gauge_name)?)),*],
                histograms: &[$($crate::def::metric!($(? $histogram_lazy)? $($histogram_name)?)),*],
                codes: &[$($crate::def::metric!($(? $codes_lazy)? $($codes_name)?)),*],
                texts: &[$($crate::def::metric!($(? $text_lazy)? $($text_name)?)),*],
            };
        }

        $crate::def::constants!($group Counter $($counter)*);
        $crate::def::constants!($group Gauge $($gauge)*);
        $crate::def::constants!($group Histogram $($histogram)*);
        $crate::def::constants!($group Codes $($codes)*);
        $crate::def::constants!($group Text $($text)*);
    };
}

macro_rules! metric {
    (? $name:literal) => {
        $crate::def::Metric {
            name: $name,
            on_demand: true,
        }
    };
    ($name:literal) => {
        $crate::def::Metric {
            name: $name,
            on_demand: false,
        }
    };
}

/// Numbers the constants in their order of appearance.
macro_rules! constants {
    ($group:ident $kind:ident) => {};
    ($group:ident $kind:ident $($name:ident)+) => {
        $crate::def::constants!(@number $group $kind 0u16; $($name)+);
    };
    (@number $group:ident $kind:ident $index:expr; $name:ident $($rest:ident)*) => {
        pub const $name: $crate::$kind<$group> = $crate::$kind::new($index);
        $crate::def::constants!(@number $group $kind $index + 1; $($rest)*);
    };
    (@number $group:ident $kind:ident $index:expr;) => {};
}

pub(crate) use {constants, group, metric};
