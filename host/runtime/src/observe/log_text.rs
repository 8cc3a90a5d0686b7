//! Log lines that are one line each and that no terminal obeys, whatever logs and whatever is quoted: events,
//! plugins, servers, libraries. The one place where fields become text.

use std::fmt::{self, Write};

use tracing::field::Field;
use tracing::{Event, Subscriber};
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer, debug_fn};
use tracing_subscriber::registry::LookupSpan;

use tidemill_core::model::plain_text::{Escaping, PLAIN_TEXT_BYTES_MAX, json};

/// Fields for people: the message as it is, then `name=value`; each value made plain and of a bounded length.
pub fn fields() -> impl for<'writer> FormatFields<'writer> + Send + Sync + 'static {
    debug_fn(|writer: &mut Writer<'_>, field: &Field, value: &dyn fmt::Debug| {
        if field.name() != "message" {
            let (on, off) = if writer.has_ansi_escapes() { ("\u{1b}[2m", "\u{1b}[0m") } else { ("", "") };
            write!(writer, "{on}{}={off}", field.name())?;
        }
        write!(Escaping::at_most(writer, PLAIN_TEXT_BYTES_MAX), "{value:?}")
    })
    .delimited(" ")
}

/// Lines of JSON, which say the same in characters that no terminal obeys.
pub struct JsonLines<F>(pub F);

impl<S, N, F> FormatEvent<S, N> for JsonLines<F>
where
    S: Subscriber + for<'lookup> LookupSpan<'lookup>,
    N: for<'writer> FormatFields<'writer> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut to: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut line = String::new();
        self.0.format_event(context, Writer::new(&mut line), event)?;
        to.write_str(&json(&line))
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::fmt::MakeWriter;
    use tracing_subscriber::fmt::format::{self, JsonFields};

    use super::*;
    use tidemill_core::model::plain_text::is_obeyed;

    const HOSTILE: &str = "a\u{1b}[2J\u{7}\u{9b}\u{202e}\u{200b}\r\nERROR forged";

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl<'a> MakeWriter<'a> for Kept {
        type Writer = Self;

        fn make_writer(&'a self) -> Self {
            self.clone()
        }
    }

    impl Kept {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    /// Every way in which a field can be logged.
    fn log() {
        let error = io::Error::other(HOSTILE);
        let span = tracing::info_span!("span", name = %HOSTILE);
        span.in_scope(|| {
            tracing::info!(display = %HOSTILE, debug = ?HOSTILE, text = HOSTILE, error = &error as &dyn std::error::Error, "{HOSTILE}");
        });
        tracing::info!(long = %"x".repeat(1 << 20), "{}", "y".repeat(1 << 20));
    }

    #[test]
    fn a_line_is_one_line_of_bounded_length_whatever_is_logged() {
        let kept = Kept::default();
        let subscriber =
            tracing_subscriber::fmt().fmt_fields(fields()).with_ansi(false).with_writer(kept.clone()).finish();
        tracing::subscriber::with_default(subscriber, log);
        let text = kept.text();
        assert_eq!(text.lines().count(), 2, "{text}");
        assert!(!text.replace('\n', "").chars().any(is_obeyed), "{text}");
        assert!(text.lines().all(|line| line.len() < 3 * PLAIN_TEXT_BYTES_MAX) && text.contains("xxx..."));
        assert!(text.contains(r"a\u{1b}[2J\u{7}\u{9b}\u{202e}\u{200b}\r\nERROR forged display=a\u{1b}"), "{text}");
    }

    #[test]
    fn a_line_of_json_says_exactly_what_was_logged_and_nothing_in_it_is_obeyed() {
        let kept = Kept::default();
        let subscriber = tracing_subscriber::fmt()
            .event_format(JsonLines(format::format().json()))
            .fmt_fields(JsonFields::new())
            .with_writer(kept.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, log);
        let text = kept.text();
        assert_eq!(text.lines().count(), 2, "{text}");
        assert!(!text.replace('\n', "").chars().any(is_obeyed), "{text}");
        let line: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        assert_eq!((&line["fields"]["message"], &line["fields"]["text"]), (&HOSTILE.into(), &HOSTILE.into()), "{line}");
    }
}
