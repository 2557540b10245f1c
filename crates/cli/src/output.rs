//! How commands print: colour on a terminal only, one JSON object per line for machines.

use std::io::{self, IsTerminal as _, Write as _};

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
