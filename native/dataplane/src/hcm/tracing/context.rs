//! A span's identity, whatever carries it from proxy to proxy.

use tidegate_rt::Rng;

/// A span's identity and its place in the trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Context {
    /// The upper half of a trace id of 128 bits, else 0.
    pub(crate) trace_high: u64,
    pub(crate) trace: u64,
    pub(crate) id: u64,
    pub(crate) parent: Option<u64>,
    pub(crate) sampled: bool,
}

impl Context {
    /// A trace begins.
    pub(crate) fn root(rng: &mut Rng, wide: bool, sampled: bool) -> Self {
        let id = rng.next_u64();
        Self {
            trace_high: if wide { rng.next_u64() } else { 0 },
            trace: id,
            id,
            parent: None,
            sampled,
        }
    }

    pub(crate) fn child(self, rng: &mut Rng) -> Self {
        Self {
            id: rng.next_u64(),
            parent: Some(self.id),
            ..self
        }
    }

    /// 16 or 32 hexadecimal digits.
    pub(crate) fn trace_id<'b>(&self, out: &'b mut [u8; 32]) -> &'b [u8] {
        let (high, low) = out.split_at_mut(16);
        high.copy_from_slice(&hex(self.trace_high));
        low.copy_from_slice(&hex(self.trace));
        let start = if self.trace_high == 0 { 16 } else { 0 };
        out.get(start..).unwrap_or_default()
    }
}

/// Sixteen digits.
pub(super) fn hex(value: u64) -> [u8; 16] {
    std::array::from_fn(|at| {
        let nibble = (value >> (60 - 4 * at)) as u8 & 0x0f;
        nibble + if nibble < 10 { b'0' } else { b'a' - 10 }
    })
}
