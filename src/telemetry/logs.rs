//! Structured logs.

use tracing_subscriber::EnvFilter;

use crate::options::LogFormat;

/// Starts logging to standard output. `RUST_LOG` sets the filter; the default is `info`.
pub fn init(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter);
    match format {
        LogFormat::Json => {
            builder.json().flatten_event(true).with_current_span(true).with_span_list(false).init();
        }
        LogFormat::Text => builder.init(),
    }
}
