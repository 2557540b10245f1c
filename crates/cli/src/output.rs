//! How commands print: colour on a terminal only, one JSON object per line for machines.

use std::io::{self, IsTerminal as _, Write as _};

use framehook_server::clock::Clock;
use serde_json::Value;

/// Words with a meaning that colour may underline. Never by colour alone: the word itself says it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Tone {
    Good,
    Bad,
    Quiet,
    Strong,
}

/// Paints `text` if standard output is a terminal that wants colour.
pub(crate) fn paint(tone: Tone, text: &str) -> String {
    let code = match tone {
        Tone::Good => "32",
        Tone::Bad => "31",
        Tone::Quiet => "2",
        Tone::Strong => "1",
    };
    if wants_colour() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

/// <https://no-color.org>: any value of `NO_COLOR` but an empty one turns colour off.
fn wants_colour() -> bool {
    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Prints a line. A reader that has gone away (`framehook … | head`) ends the program quietly, as it does others.
pub(crate) fn line(text: &str) {
    if writeln!(io::stdout().lock(), "{text}").is_err() {
        std::process::exit(0);
    }
}

/// A text field of an answer; empty if it is not there.
pub(crate) fn text(value: &Value, field: &str) -> String {
    value[field].as_str().unwrap_or_default().to_owned()
}

/// How long ago a wall time was.
pub(crate) fn ago(at_ms: i64) -> String {
    let secs = (Clock::start().wall().0 - at_ms).max(0) / 1000;
    match secs {
        ..120 => format!("{secs} s ago"),
        120..7200 => format!("{} min ago", secs / 60),
        7200..172_800 => format!("{} h ago", secs / 3600),
        _ => format!("{} d ago", secs / 86_400),
    }
}
