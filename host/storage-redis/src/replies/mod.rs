//! The replies of one connection on their way to the client library, with every stream entry in them bounded. The
//! library holds a whole reply in memory before it returns it, and XREADGROUP has a bound on entries but none on bytes.
//! So the bytes pass through here first (RESP2), and:
//! - an entry of an input stream above [`ReplyBounds::entry_bytes`] is not kept: in place of its fields stands what is
//!   known of it, as [`large`] reads it;
//! - what is above [`ReplyBounds::reply_bytes`] in all is left out entry by entry, as [`is_left`] detects; such an
//!   entry is pending and is read again. The first entry of a reply always stays.
//!
//! The form of a reply shows whether it holds entries: a list of a stream's name and its entries, each a list of an id
//! and a list of fields. A redelivery queue holds only our own records: its entries are never truncated.

mod sum;
#[cfg(test)]
mod tests;

use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use redis::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use super::keys;
pub(super) use super::replies::sum::large;
use super::replies::sum::{Sum, sum};

/// What a name or value of an entry takes beside its bytes, about: the library's own form of it.
const VALUE_BYTES: usize = 64;
/// What is read from the socket at once.
const READ_BYTES: usize = 32 << 10;
/// Longer lines than this are no header of RESP, and no name of a stream.
const LINE_BYTES_MAX: usize = 64 << 10;

#[derive(Debug, Clone, Copy)]
pub(super) struct ReplyBounds {
    /// Names and values of one entry of an input stream.
    pub(crate) entry_bytes: usize,
    /// Entries of one reply.
    pub(crate) reply_bytes: usize,
}

/// A socket whose replies are bounded.
pub(super) struct Bounded<S> {
    socket: S,
    input: BytesMut,
    replies: Replies,
}

impl<S> Bounded<S> {
    pub(crate) fn new(socket: S, bounds: ReplyBounds) -> Self {
        Self { socket, input: BytesMut::new(), replies: Replies::new(bounds) }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Bounded<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { socket, input, replies } = &mut *self;
        loop {
            let ready = replies.ready();
            if ready > 0 {
                let count = ready.min(buf.remaining());
                buf.put_slice(&replies.output[..count]);
                replies.advance(count);
                return Poll::Ready(Ok(()));
            }
            input.reserve(READ_BYTES);
            // A read that is not ready keeps nothing.
            if ready!(pin!(socket.read_buf(input)).poll(cx))? == 0 {
                return Poll::Ready(Ok(()));
            }
            replies.take(input).map_err(|text| io::Error::new(io::ErrorKind::InvalidData, text))?;
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Bounded<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

/// Whether these stand for the fields of an entry for which there was no room in its reply.
pub(super) fn is_left(fields: &[Value]) -> bool {
    matches!(fields, [Value::Int(_)])
}

/// A list that has begun.
struct List {
    /// Elements that are still to come.
    left: usize,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Any,
    /// Of two: perhaps a stream's name and its entries. `None` until the name has come.
    Stream(Option<Whose>),
    Entries(Whose),
    /// Of two: an id and the fields.
    Entry(Whose),
    Fields(Whose),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Whose {
    /// A stream that any producer may write to.
    Input,
    /// Records of ours.
    Ours,
}

/// A string whose header has come.
struct Text {
    /// Bytes that are still to come, the line end with them.
    left: usize,
    /// What becomes of it.
    fate: Fate,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Passed,
    /// Passed, and kept for a while: the name of a stream.
    Name,
    /// It is part of an entry that is not kept.
    Summed,
    Left,
}

/// What becomes of the entry whose fields are being read.
enum Current {
    /// `cost`: what it takes so far; its fields lie in the output from `begun` on, where it has `count` elements.
    Kept {
        begun: usize,
        cost: usize,
        count: usize,
    },
    Summed(Box<Sum>),
    Left(u64),
}

struct Replies {
    bounds: ReplyBounds,
    lists: Vec<List>,
    text: Option<Text>,
    name: Vec<u8>,
    current: Option<Current>,
    /// What the kept entries of this reply take.
    used: usize,
    output: BytesMut,
}

impl Replies {
    fn new(bounds: ReplyBounds) -> Self {
        Self {
            bounds,
            lists: Vec::new(),
            text: None,
            name: Vec::new(),
            current: None,
            used: 0,
            output: BytesMut::new(),
        }
    }

    /// How much of the output will not change any more.
    fn ready(&self) -> usize {
        match &self.current {
            Some(Current::Kept { begun, .. }) => *begun,
            _ => self.output.len(),
        }
    }

    fn advance(&mut self, count: usize) {
        self.output.advance(count);
        if let Some(Current::Kept { begun, .. }) = &mut self.current {
            *begun -= count;
        }
    }

    /// Takes what has come; leaves the beginning of a line that is not whole yet.
    fn take(&mut self, input: &mut BytesMut) -> Result<(), &'static str> {
        let mut at = 0;
        while at < input.len() {
            if let Some(text) = &mut self.text {
                let count = text.left.min(input.len() - at);
                text.left -= count;
                let (end, fate) = (text.left == 0, text.fate);
                // The line end, of which a part may be among these bytes, is no part of the text.
                let line_end = 2usize.saturating_sub(text.left).min(count);
                let bytes = &input[at..at + count];
                match (fate, &mut self.current) {
                    (Fate::Summed, Some(Current::Summed(sum))) => sum.add(&bytes[..count - line_end]),
                    (Fate::Left, _) => {}
                    _ => self.output.extend_from_slice(bytes),
                }
                if fate == Fate::Name {
                    self.name.extend_from_slice(&bytes[..count - line_end]);
                }
                at += count;
                if end {
                    self.text = None;
                    self.text_ended(fate);
                }
                continue;
            }
            let Some(line) = input[at..].iter().position(|byte| *byte == b'\n') else {
                if input.len() - at > LINE_BYTES_MAX {
                    return Err("a line of a reply has no end");
                }
                break;
            };
            let line = &input[at..=at + line];
            at += line.len();
            self.line(line)?;
        }
        input.advance(at);
        if input.is_empty() && input.capacity() > 4 * READ_BYTES {
            *input = BytesMut::new();
        }
        Ok(())
    }

    fn line(&mut self, line: &[u8]) -> Result<(), &'static str> {
        let number = || {
            let digits = line[1..].trim_ascii();
            std::str::from_utf8(digits)
                .ok()
                .and_then(|digits| digits.parse::<i64>().ok())
                .ok_or("a length is no number")
        };
        match line[0] {
            b'*' => match usize::try_from(number()?) {
                Ok(count) => self.list(line, count),
                Err(_) => self.simple(line),
            },
            b'$' => match usize::try_from(number()?) {
                Ok(bytes) => self.string(line, bytes),
                Err(_) => self.simple(line),
            },
            _ => self.simple(line),
        }
        Ok(())
    }

    fn list(&mut self, line: &[u8], count: usize) {
        let kind = match self.lists.last().map(|list| (list.kind, list.left)) {
            Some((Kind::Stream(Some(whose)), 1)) => Kind::Entries(whose),
            Some((Kind::Entries(whose), _)) if count == 2 => Kind::Entry(whose),
            Some((Kind::Entry(whose), 1)) => Kind::Fields(whose),
            // A list comes first in it: it was no stream itself, but a list of two of them.
            None | Some((Kind::Any | Kind::Stream(None), _)) if count == 2 => Kind::Stream(None),
            _ => Kind::Any,
        };
        if let Kind::Fields(whose) = kind {
            let begun = self.output.len();
            self.current = Some(Current::Kept { begun, cost: 0, count });
            self.reserve(whose, count.saturating_mul(VALUE_BYTES));
        }
        self.pass(line);
        self.lists.push(List { left: count, kind });
        if count == 0 {
            self.lists_ended();
        }
    }

    fn string(&mut self, line: &[u8], bytes: usize) {
        if let Some(List { kind: Kind::Fields(whose), .. }) = self.lists.last() {
            self.reserve(*whose, bytes);
        }
        let fate = match &mut self.current {
            Some(Current::Summed(sum)) => {
                if !sum.event {
                    sum.add(format!("{bytes}:").as_bytes());
                }
                Fate::Summed
            }
            Some(Current::Left(_)) => Fate::Left,
            _ => match self.lists.last() {
                Some(List { kind: Kind::Stream(None), left: 2 }) if bytes <= LINE_BYTES_MAX => Fate::Name,
                _ => Fate::Passed,
            },
        };
        if matches!(fate, Fate::Passed | Fate::Name) {
            self.output.extend_from_slice(line);
        }
        self.text = Some(Text { left: bytes + 2, fate });
    }

    /// A line that is a whole element.
    fn simple(&mut self, line: &[u8]) {
        self.pass(line);
        self.element_ended();
    }

    fn pass(&mut self, line: &[u8]) {
        if !matches!(self.current, Some(Current::Summed(_) | Current::Left(_))) {
            self.output.extend_from_slice(line);
        }
    }

    fn text_ended(&mut self, fate: Fate) {
        if fate == Fate::Summed
            && let Some(Current::Summed(sum)) = &mut self.current
            && !sum.event
        {
            sum.add(b",");
        }
        if fate == Fate::Name
            && let Some(list) = self.lists.last_mut()
        {
            let whose = if keys::is_again(&self.name) { Whose::Ours } else { Whose::Input };
            list.kind = Kind::Stream(Some(whose));
            self.name.clear();
        }
        self.element_ended();
    }

    fn element_ended(&mut self) {
        if let Some(list) = self.lists.last_mut() {
            list.left = list.left.saturating_sub(1);
        }
        self.lists_ended();
    }

    /// Ends the lists that have all their elements.
    fn lists_ended(&mut self) {
        while let Some(list) = self.lists.last()
            && list.left == 0
        {
            if matches!(list.kind, Kind::Fields(_)) {
                self.entry_ended();
            }
            self.lists.pop();
            if let Some(outer) = self.lists.last_mut() {
                outer.left = outer.left.saturating_sub(1);
            }
        }
        if self.lists.is_empty() {
            self.used = 0;
        }
    }

    /// The current entry takes so much more. Beyond a bound it is not kept.
    fn reserve(&mut self, whose: Whose, bytes: usize) {
        match &mut self.current {
            Some(Current::Left(all)) => *all += bytes as u64,
            Some(Current::Kept { begun, cost, count }) => {
                *cost = cost.saturating_add(bytes);
                let (begun, cost, count) = (*begun, *cost, *count);
                if whose == Whose::Input && cost > self.bounds.entry_bytes {
                    self.current = Some(Current::Summed(Box::new(sum(&self.output[begun..], count))));
                    self.output.truncate(begun);
                } else if self.used > 0 && self.used.saturating_add(cost) > self.bounds.reply_bytes {
                    self.current = Some(Current::Left(cost as u64));
                    self.output.truncate(begun);
                }
            }
            _ => {}
        }
    }

    fn entry_ended(&mut self) {
        match self.current.take() {
            Some(Current::Kept { cost, .. }) => self.used += cost.max(1),
            Some(Current::Summed(sum)) => {
                self.used += sum.prefix.len() + VALUE_BYTES;
                sum.write(&mut self.output);
            }
            Some(Current::Left(bytes)) => self.output.extend_from_slice(format!("*1\r\n:{bytes}\r\n").as_bytes()),
            None => {}
        }
    }
}
