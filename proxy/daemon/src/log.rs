//! Log lines on stderr.

use tracing::level_filters::LevelFilter;

use crate::config::LogFormat;

/// Begins to log.
pub(crate) fn start(format: LogFormat) {
    let lines = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_max_level(LevelFilter::INFO)
        .with_target(false);
    match format {
        LogFormat::Text => lines.init(),
        LogFormat::Json => lines.json().init(),
    }
}
