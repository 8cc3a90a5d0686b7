//! The lines of an input, read ahead by a thread of its own: the caller can do other things while no line comes.

use std::io::{self, BufRead, BufReader, Read};

use tokio::sync::mpsc::{self, Receiver, Sender};

use tidemill_process::tasks;
use tidemill_process::tasks::Task;

/// What is read from the input at once.
const READ_BYTES: usize = 64 << 10;
/// Lines that are handed over together, as far as they are there.
const CHUNK_LINES_MAX: usize = 128;
/// Handed over and not taken yet.
const CHUNKS_AHEAD_MAX: usize = 2;

pub(super) struct Line {
    /// From 1.
    pub number: u64,
    /// Without the white space at its end. Of a line that is too long, one byte more than it may have.
    pub bytes: Vec<u8>,
}

/// Starts to read. What cannot be read is the last answer. Lines that are there are handed over before the input is
/// waited for.
///
/// # Errors
/// No thread could be started.
pub(super) fn read(
    input: impl Read + Send + 'static,
    line_bytes_max: usize,
) -> io::Result<Receiver<io::Result<Vec<Line>>>> {
    let (sender, receiver) = mpsc::channel(CHUNKS_AHEAD_MAX);
    let input = BufReader::with_capacity(READ_BYTES, input);
    let last = LastWord(sender.clone());
    tasks::thread(Task::Input, "input".to_owned(), None, None, move || {
        let _last = last;
        if let Err(error) = hand_over(input, line_bytes_max, &sender) {
            // The receiver is gone: the command has ended.
            let _ = sender.blocking_send(Err(error));
        }
    })?;
    Ok(receiver)
}

/// A reader that dies says so: else what it has read would be taken for all that there is.
struct LastWord(Sender<io::Result<Vec<Line>>>);

impl Drop for LastWord {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // The receiver may be gone.
            let _ = self.0.blocking_send(Err(io::Error::other("its reader died")));
        }
    }
}

fn hand_over<R: Read>(
    mut input: BufReader<R>,
    line_bytes_max: usize,
    to: &Sender<io::Result<Vec<Line>>>,
) -> io::Result<()> {
    let mut chunk = Vec::new();
    for number in 1.. {
        match next_line(&mut input, line_bytes_max) {
            Ok(Some(bytes)) if bytes.is_empty() => {}
            Ok(Some(bytes)) => chunk.push(Line { number, bytes }),
            ended => {
                // The receiver may be gone.
                let _ = to.blocking_send(Ok(chunk));
                return ended.map(|_| ());
            }
        }
        let would_wait = !input.buffer().contains(&b'\n');
        let full = chunk.len() == CHUNK_LINES_MAX;
        if (would_wait || full) && !chunk.is_empty() && to.blocking_send(Ok(std::mem::take(&mut chunk))).is_err() {
            return Ok(());
        }
    }
    Ok(())
}

/// None: the input is at its end.
fn next_line(input: &mut impl BufRead, line_bytes_max: usize) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    // One byte over the bound is enough to refuse a line, however long it goes on.
    let max = line_bytes_max as u64 + 1;
    let read = input.take(max).read_until(b'\n', &mut line)?;
    if read as u64 == max && !line.ends_with(b"\n") {
        skip_line(input)?;
    }
    line.truncate(line.trim_ascii_end().len());
    Ok((read > 0).then_some(line))
}

fn skip_line(input: &mut impl BufRead) -> io::Result<()> {
    loop {
        let buffer = input.fill_buf()?;
        if buffer.is_empty() {
            return Ok(());
        }
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let count = end.map_or(buffer.len(), |at| at + 1);
        input.consume(count);
        if end.is_some() {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str, line_bytes_max: usize) -> Vec<(u64, String)> {
        let mut lines = read(io::Cursor::new(text.to_owned()), line_bytes_max).unwrap();
        let mut found = Vec::new();
        while let Some(chunk) = lines.blocking_recv() {
            found.extend(chunk.unwrap().into_iter().map(|line| (line.number, String::from_utf8(line.bytes).unwrap())));
        }
        found
    }

    #[test]
    fn lines_bear_their_numbers_and_empty_ones_are_left_out() {
        let wanted = [(1, " a".to_owned()), (4, "b".to_owned()), (5, "c".to_owned())];
        assert_eq!(all(" a \r\n\n  \nb\nc", 100), wanted);
    }

    #[test]
    fn a_line_that_is_too_long_is_cut_and_the_next_one_is_whole() {
        let text = format!("{}\nnext\n", "x".repeat(300_000));
        assert_eq!(all(&text, 9), [(1, "x".repeat(10)), (2, "next".to_owned())]);
    }

    #[test]
    fn more_lines_than_are_handed_over_at_once_all_come() {
        let text: String = (0..1000).map(|number| format!("{number}\n")).collect();
        let found = all(&text, 100);
        assert_eq!((found.len(), found.last()), (1000, Some(&(1000, "999".to_owned()))));
    }
}
