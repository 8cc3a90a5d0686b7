//! Exact times of one host since it began, for `demo` and the benches: quantiles need no buckets chosen beforehand.

use std::sync::Mutex;
use std::time::Duration;

use hdrhistogram::Histogram;

/// Durations are kept with two significant digits, up to ten minutes.
const TOP_US: u64 = 600_000_000;

/// What this host has measured since it began.
pub struct Meters {
    /// One call into a guest.
    pub call_us: Mutex<Histogram<u64>>,
    /// One batch, from fetched to settled.
    pub batch_us: Mutex<Histogram<u64>>,
    /// One settlement, the backend's part alone.
    pub settle_us: Mutex<Histogram<u64>>,
}

impl Default for Meters {
    fn default() -> Self {
        // The bounds are constants that the histogram accepts.
        let histogram = || Mutex::new(Histogram::new_with_max(TOP_US, 2).expect("valid bounds"));
        Self { call_us: histogram(), batch_us: histogram(), settle_us: histogram() }
    }
}

impl Meters {
    pub(super) fn record(meter: &Mutex<Histogram<u64>>, took: impl Iterator<Item = Duration>) {
        if let Ok(mut histogram) = meter.lock() {
            for took in took {
                histogram.saturating_record(u64::try_from(took.as_micros()).unwrap_or(TOP_US).min(TOP_US));
            }
        }
    }

    /// The value in microseconds that this share of the measurements stays below; 0 if there are none.
    pub fn quantile(meter: &Mutex<Histogram<u64>>, quantile: f64) -> u64 {
        meter.lock().map_or(0, |histogram| histogram.value_at_quantile(quantile))
    }
}
