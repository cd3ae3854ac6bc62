//! Server-sent events ([WHATWG HTML §9.2](https://html.spec.whatwg.org/multipage/server-sent-events.html)), cut out of a
//! stream and kept byte for byte: comments, `id`, `retry` and empty events go on as they came.

/// One event, with the blank line that ends it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// As it came.
    pub raw: Vec<u8>,
    /// Its `data` lines, joined by line breaks; nothing when it has none or they are empty.
    pub data: Option<String>,
    /// Its `id`, with which a client can ask for what follows.
    pub id: Option<String>,
}

/// What a stream is cut into.
#[derive(Debug, PartialEq, Eq)]
pub enum Item {
    /// A whole event.
    Event(Event),
    /// The beginning of an event that is too large to be held. [`Large`] reads on from its first byte.
    Large(Vec<u8>),
}

/// Cuts a stream.
#[derive(Debug)]
pub struct Events {
    buffer: Vec<u8>,
    /// Up to here no blank line was found.
    looked_at: usize,
    /// Where the line of now begins.
    line: usize,
    hold_max: usize,
    begun: bool,
}

/// A stream may begin with a mark of its byte order, which is not part of it.
const MARK: &[u8] = "\u{feff}".as_bytes();

impl Events {
    /// Of which at most so many bytes are held for one event.
    pub fn new(hold_max: usize) -> Self {
        Self { buffer: Vec::new(), looked_at: 0, line: 0, hold_max, begun: false }
    }

    /// Takes the next bytes of the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next event, when it is whole.
    pub fn next_item(&mut self) -> Option<Item> {
        if !self.begun {
            if self.buffer.len() < MARK.len() && MARK.starts_with(&self.buffer) {
                return None;
            }
            if self.buffer.starts_with(MARK) {
                self.buffer.drain(..MARK.len());
            }
            self.begun = true;
        }
        while let Some(byte) = self.buffer.get(self.looked_at) {
            let end = match (byte, self.buffer.get(self.looked_at + 1)) {
                (b'\n', _) => self.looked_at + 1,
                // Whether a line feed belongs to it, the next byte tells.
                (b'\r', None) => break,
                (b'\r', Some(b'\n')) => self.looked_at + 2,
                (b'\r', Some(_)) => self.looked_at + 1,
                _ => {
                    self.looked_at += 1;
                    continue;
                }
            };
            let blank = self.looked_at == self.line;
            (self.looked_at, self.line) = (end, end);
            if blank {
                let rest = self.buffer.split_off(end);
                let raw = std::mem::replace(&mut self.buffer, rest);
                (self.looked_at, self.line) = (0, 0);
                return Some(Item::Event(read(raw)));
            }
        }
        (self.buffer.len() > self.hold_max).then(|| {
            (self.looked_at, self.line) = (0, 0);
            Item::Large(std::mem::take(&mut self.buffer))
        })
    }
}

fn lines(raw: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    // A carriage return before a line feed leaves an empty piece, which is no line of an event either.
    raw.split(|b| matches!(b, b'\n' | b'\r')).filter(|line| !line.is_empty())
}

/// The value of a field: without its name, the colon and one space.
fn value<'l>(line: &'l [u8], field: &str) -> Option<&'l [u8]> {
    let rest = line.strip_prefix(field.as_bytes())?;
    match rest.strip_prefix(b":") {
        Some(value) => Some(value.strip_prefix(b" ").unwrap_or(value)),
        None => rest.is_empty().then_some(rest),
    }
}

fn read(raw: Vec<u8>) -> Event {
    let text = &raw[..];
    let data: Vec<_> = lines(text).filter_map(|line| value(line, "data")).collect();
    let data = data.join(&b'\n');
    let id = lines(text).filter_map(|line| value(line, "id")).next_back();
    let id = id.map(|id| String::from_utf8_lossy(id).into_owned());
    let data = (!data.is_empty()).then(|| String::from_utf8_lossy(&data).into_owned());
    Event { raw, data, id }
}

impl Event {
    /// Its lines beside the data, as one text.
    pub fn fields(&self) -> String {
        let fields: Vec<&[u8]> = lines(&self.raw).filter(|line| value(line, "data").is_none()).collect();
        String::from_utf8_lossy(&fields.join(&b'\n')).into_owned()
    }

    /// The same event with other data, which is one line.
    pub fn with_data(&self, data: &str) -> Vec<u8> {
        let (mut out, mut said) = (Vec::with_capacity(data.len() + 64), false);
        for line in lines(&self.raw) {
            match value(line, "data") {
                Some(_) if said => {}
                Some(_) => {
                    out.extend_from_slice(&event_data(data));
                    said = true;
                }
                None => out.extend_from_slice(&[line, b"\n"].concat()),
            }
        }
        out.push(b'\n');
        out
    }
}

fn event_data(data: &str) -> Vec<u8> {
    [b"data: ", data.as_bytes(), b"\n"].concat()
}

/// A whole event of Warden's own, with an id when it can be asked for again.
pub fn event(data: &str, id: Option<&str>) -> Vec<u8> {
    let id = id.map(|id| format!("id: {id}\n")).unwrap_or_default();
    [b"event: message\n", id.as_bytes(), &event_data(data), b"\n"].concat()
}

/// Reads the data of one event piece by piece.
#[derive(Debug, Default)]
pub struct Large {
    state: State,
    /// Lines that are no data, until they go on.
    fields: Vec<u8>,
    lines: usize,
    skip_line_feed: bool,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    LineStart,
    Field(Vec<u8>),
    DataBegins,
    Data,
}

/// Bytes of an event's other lines.
const FIELDS_MAX: usize = 64 << 10;

impl Large {
    /// Takes bytes of the event and gives its data. Once the event is over, also what follows it.
    pub fn push<'b>(&mut self, bytes: &'b [u8]) -> (Vec<u8>, Option<&'b [u8]>) {
        let (mut data, mut at) = (Vec::new(), 0);
        while let Some(byte) = bytes.get(at) {
            let ends = matches!(byte, b'\n' | b'\r');
            if std::mem::take(&mut self.skip_line_feed) && *byte == b'\n' {
                at += 1;
                continue;
            }
            self.skip_line_feed = *byte == b'\r';
            match &mut self.state {
                State::LineStart if ends => return (data, Some(&bytes[at + 1..])),
                State::LineStart => {
                    self.skip_line_feed = false;
                    self.state = State::Field(Vec::new());
                    continue;
                }
                State::Field(_) if ends => self.field_ends(),
                State::Field(name) if name.len() >= FIELDS_MAX => {}
                State::Field(name) => {
                    name.push(*byte);
                    if name == b"data:" {
                        if self.lines > 0 {
                            data.push(b'\n');
                        }
                        self.lines += 1;
                        self.state = State::DataBegins;
                    }
                }
                State::DataBegins if *byte == b' ' => self.state = State::Data,
                State::DataBegins | State::Data if ends => self.state = State::LineStart,
                State::DataBegins | State::Data => {
                    self.state = State::Data;
                    let rest = &bytes[at..];
                    let length = rest.iter().position(|b| matches!(b, b'\n' | b'\r')).unwrap_or(rest.len());
                    data.extend_from_slice(&rest[..length]);
                    at += length;
                    continue;
                }
            }
            at += 1;
        }
        (data, None)
    }

    /// The lines before and between the data that were not given yet.
    pub fn fields(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.fields)
    }

    fn field_ends(&mut self) {
        if let State::Field(line) = std::mem::take(&mut self.state)
            && self.fields.len() + line.len() < FIELDS_MAX
        {
            self.fields.extend_from_slice(&line);
            self.fields.push(b'\n');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(stream: &[u8], cut: usize) -> Vec<Event> {
        let (mut events, mut all) = (Events::new(1 << 16), Vec::new());
        for part in [&stream[..cut], &stream[cut..]] {
            events.push(part);
            while let Some(Item::Event(event)) = events.next_item() {
                all.push(event);
            }
        }
        all
    }

    const STREAM: &[u8] =
        b": hello\n\nid: 1\ndata:\nretry: 500\n\nevent: message\r\ndata: {\"a\":\r\ndata:1}\r\n\r\nid:2\rdata: x\r\r.";

    #[test]
    fn every_cut_gives_the_same_events_and_no_byte_is_lost() {
        let whole = events(STREAM, STREAM.len());
        let seen: Vec<_> = whole.iter().map(|e| (e.data.as_deref(), e.id.is_some())).collect();
        assert_eq!(seen, [(None, false), (None, true), (Some("{\"a\":\n1}"), false), (Some("x"), true)]);
        let raw: Vec<u8> = whole.iter().flat_map(|e| e.raw.clone()).collect();
        assert_eq!(raw, STREAM[..STREAM.len() - 1]);
        for cut in 0..STREAM.len() {
            assert_eq!(events(STREAM, cut), whole, "cut at {cut}");
        }
    }

    #[test]
    fn a_mark_of_byte_order_hides_nothing() {
        let stream = "\u{feff}data: a\n\n\u{feff}data: b\n\n".as_bytes();
        for cut in 0..stream.len() {
            let all = events(stream, cut);
            assert_eq!(all[0].with_data("x"), b"data: x\n\n");
            assert_eq!(all[1].data, None, "within a stream it is part of a name that nobody knows");
        }
    }

    #[test]
    fn data_is_replaced_and_the_other_lines_stay() {
        let event = read(b"event: message\nid: 7\ndata: a\ndata: b\nretry: 1\n\n".to_vec());
        assert_eq!(event.with_data("{}"), b"event: message\nid: 7\ndata: {}\nretry: 1\n\n");
    }

    #[test]
    fn a_large_event_is_given_as_it_comes_however_it_is_cut() {
        let stream = b"event: message\r\nid: 7\r\ndata: {\"a\":\r\ndata:1}\r\nretry: 1\r\n\r\ndata: next\n\n";
        for cut in 0..stream.len() {
            let (mut large, mut data, mut after) = (Large::default(), Vec::new(), None);
            for part in [&stream[..cut], &stream[cut..]] {
                match &mut after {
                    None => {
                        let (more, rest) = large.push(part);
                        data.extend(more);
                        after = rest.map(<[u8]>::to_vec);
                    }
                    Some(after) => after.extend_from_slice(part),
                }
            }
            assert_eq!(String::from_utf8_lossy(&data), "{\"a\":\n1}", "cut at {cut}");
            // The line feed of the blank line itself may come first.
            let after = String::from_utf8(after.unwrap()).unwrap();
            assert_eq!(after.trim_start(), "data: next\n\n", "cut at {cut}");
            assert_eq!(large.fields(), b"event: message\nid: 7\nretry: 1\n");
        }
    }

    #[test]
    fn what_is_too_large_is_not_held() {
        let mut events = Events::new(8);
        events.push(b"data: 123456789");
        assert_eq!(events.next_item(), Some(Item::Large(b"data: 123456789".to_vec())));
        assert_eq!(events.next_item(), None);
    }
}
