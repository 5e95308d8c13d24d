//! The texts of requests as a flat tree of nodes: strict JSON, of which what is odd is left to Python.

use std::borrow::Cow;

use crate::msgpack::{Known, Unknown};

/// How deep is read here; what nests deeper is Python's, which knows the limit.
const DEPTH_MAX: u32 = 24;
/// Digits of a whole number that fits into 64 bits whatever they are.
const DIGITS_MAX: usize = 18;
const LITERAL_BYTES_MAX: usize = 32;
/// Objects of more keys have them sorted to find one that is there twice.
const KEYS_COMPARED_MAX: usize = 24;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Null,
    True,
    False,
    /// A whole number as it was written, of few enough digits.
    Int,
    /// A number with a point or an exponent, as it was written.
    Literal,
    Text,
    List,
    Object,
}

/// One value, followed by all values inside it.
#[derive(Debug, Clone, Copy)]
pub struct Node {
    pub kind: Kind,
    escaped: bool,
    start: u32,
    end: u32,
    key: (u32, u32),
    /// Of the key: equal keys have equal ones.
    mark: u32,
    /// The place of the next node that is not inside.
    pub after: u32,
}

/// Values of one body.
pub struct Tree<'a> {
    pub body: &'a str,
    pub nodes: Vec<Node>,
}

impl<'a> Tree<'a> {
    /// The text between a text's quotes, or a number's own.
    pub fn text(&self, place: u32) -> Known<Cow<'a, str>> {
        let node = &self.nodes[place as usize];
        let raw = self.written(place)?;
        if node.escaped { unescaped(raw).map(Cow::Owned) } else { Ok(Cow::Borrowed(raw)) }
    }

    /// What stands there, escapes and all.
    #[inline]
    pub fn written(&self, place: u32) -> Known<&'a str> {
        let node = &self.nodes[place as usize];
        self.body.get(node.start as usize..node.end as usize).ok_or(Unknown)
    }

    #[inline]
    pub fn kind(&self, place: u32) -> Kind {
        self.nodes[place as usize].kind
    }

    /// The places of what an object or a list holds.
    #[inline]
    pub fn inside(&self, place: u32) -> Inside<'_> {
        Inside { nodes: &self.nodes, next: place + 1, end: self.nodes[place as usize].after }
    }

    pub fn is_empty(&self, place: u32) -> bool {
        self.nodes[place as usize].after == place + 1
    }

    #[inline]
    pub fn key(&self, place: u32) -> &'a [u8] {
        let (start, end) = self.nodes[place as usize].key;
        self.body.as_bytes().get(start as usize..end as usize).unwrap_or(b"")
    }

    /// The place of a key's value in an object, and None of no object.
    pub fn get(&self, object: Option<u32>, key: &[u8]) -> Option<u32> {
        let object = object.filter(|place| self.kind(*place) == Kind::Object)?;
        let mark = marked(key);
        self.inside(object).find(|place| self.nodes[*place as usize].mark == mark && self.key(*place) == key)
    }
}

pub struct Inside<'t> {
    nodes: &'t [Node],
    next: u32,
    end: u32,
}

impl Iterator for Inside<'_> {
    type Item = u32;

    #[inline]
    fn next(&mut self) -> Option<u32> {
        if self.next >= self.end {
            return None;
        }
        let place = self.next;
        self.next = self.nodes[place as usize].after;
        Some(place)
    }
}

/// Reads values one after the other; an error is a text that is not JSON, or beyond what is read here.
pub struct Parser<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Something was read that only Python knows what to say to: a key twice, half a character, NUL.
    pub odd: bool,
}

/// A text's place between its quotes.
struct Quoted {
    start: u32,
    end: u32,
    escaped: bool,
}

impl<'a> Parser<'a> {
    pub fn new(body: &'a str) -> Known<Parser<'a>> {
        u32::try_from(body.len()).map_err(|_| Unknown)?;
        Ok(Parser { bytes: body.as_bytes(), at: 0, odd: false })
    }

    #[inline]
    pub fn space(&mut self) {
        while let Some(b' ' | b'\n' | b'\t' | b'\r') = self.bytes.get(self.at) {
            self.at += 1;
        }
    }

    #[inline]
    fn peek(&self) -> Known<u8> {
        self.bytes.get(self.at).copied().ok_or(Unknown)
    }

    /// Take a mark after any space; false if another stands there.
    #[inline]
    pub fn takes(&mut self, mark: u8) -> bool {
        self.space();
        let there = self.bytes.get(self.at) == Some(&mark);
        self.at += usize::from(there);
        there
    }

    #[inline]
    pub fn require(&mut self, mark: u8) -> Known<()> {
        if self.takes(mark) { Ok(()) } else { Err(Unknown) }
    }

    pub fn done(&mut self) -> Known<()> {
        self.space();
        if self.at == self.bytes.len() { Ok(()) } else { Err(Unknown) }
    }

    pub fn at(&self) -> usize {
        self.at
    }

    /// Read a key and its colon, as it is written.
    pub fn key(&mut self) -> Known<(u32, u32)> {
        self.require(b'"')?;
        let key = self.quoted()?;
        self.odd |= key.escaped;
        self.require(b':')?;
        Ok((key.start, key.end))
    }

    pub fn value(&mut self, nodes: &mut Vec<Node>) -> Known<()> {
        self.value_within(nodes, (0, 0), 0)
    }

    fn value_within(&mut self, nodes: &mut Vec<Node>, key: (u32, u32), depth: u32) -> Known<()> {
        self.space();
        let start = self.at as u32;
        let place = nodes.len();
        let mark = marked(&self.bytes[key.0 as usize..key.1 as usize]);
        let mut node = Node { kind: Kind::Null, escaped: false, start, end: 0, key, mark, after: 0 };
        match self.peek()? {
            b'"' => {
                self.at += 1;
                let text = self.quoted()?;
                (node.start, node.end) = (text.start, text.end);
                node.escaped = text.escaped;
                node.kind = Kind::Text;
            }
            open @ (b'{' | b'[') => {
                if depth == DEPTH_MAX {
                    return Err(Unknown);
                }
                self.at += 1;
                node.kind = if open == b'{' { Kind::Object } else { Kind::List };
                nodes.push(node);
                let close = if open == b'{' { b'}' } else { b']' };
                if !self.takes(close) {
                    loop {
                        let key = if open == b'{' { self.key()? } else { (0, 0) };
                        self.value_within(nodes, key, depth + 1)?;
                        if !self.takes(b',') {
                            break;
                        }
                    }
                    self.require(close)?;
                }
                let after = nodes.len() as u32;
                let opened = &mut nodes[place];
                (opened.after, opened.end) = (after, self.at as u32);
                if open == b'{' {
                    self.odd |= repeats(self.bytes, nodes, place as u32);
                }
                return Ok(());
            }
            b't' => node.kind = self.word(b"true", Kind::True)?,
            b'f' => node.kind = self.word(b"false", Kind::False)?,
            b'n' => node.kind = self.word(b"null", Kind::Null)?,
            _ => node.kind = self.number()?,
        }
        if node.kind != Kind::Text {
            node.end = self.at as u32;
        }
        node.after = place as u32 + 1;
        nodes.push(node);
        Ok(())
    }

    fn word(&mut self, word: &[u8], kind: Kind) -> Known<Kind> {
        if !self.bytes[self.at..].starts_with(word) {
            return Err(Unknown);
        }
        self.at += word.len();
        Ok(kind)
    }

    fn digits(&mut self) -> usize {
        let start = self.at;
        while self.bytes.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
        self.at - start
    }

    fn number(&mut self) -> Known<Kind> {
        let start = self.at;
        let minus = self.peek()? == b'-';
        self.at += usize::from(minus);
        let first = self.peek()?;
        let count = self.digits();
        if count == 0 || (first == b'0' && count > 1) {
            return Err(Unknown);
        }
        let mut kind = Kind::Int;
        if self.bytes.get(self.at) == Some(&b'.') {
            self.at += 1;
            kind = Kind::Literal;
            if self.digits() == 0 {
                return Err(Unknown);
            }
        }
        if let Some(b'e' | b'E') = self.bytes.get(self.at) {
            self.at += 1;
            kind = Kind::Literal;
            if let Some(b'+' | b'-') = self.bytes.get(self.at) {
                self.at += 1;
            }
            if self.digits() == 0 {
                return Err(Unknown);
            }
        }
        self.odd |= match kind {
            Kind::Int => count > DIGITS_MAX || (minus && first == b'0'),
            _ => self.at - start > LITERAL_BYTES_MAX,
        };
        Ok(kind)
    }

    /// Read a text up to its closing quote.
    fn quoted(&mut self) -> Known<Quoted> {
        let start = self.at as u32;
        let mut escaped = false;
        loop {
            self.skip_plain();
            match self.peek()? {
                b'"' => {
                    self.at += 1;
                    return Ok(Quoted { start, end: self.at as u32 - 1, escaped });
                }
                b'\\' => {
                    escaped = true;
                    self.escape()?;
                }
                _ => return Err(Unknown), // a control character
            }
        }
    }

    /// Go on to the next quote, backslash or control character, eight bytes at a time.
    #[inline]
    fn skip_plain(&mut self) {
        const ONES: u64 = 0x0101_0101_0101_0101;
        const TOPS: u64 = 0x8080_8080_8080_8080;
        while let Some(chunk) = self.bytes.get(self.at..).and_then(|rest| rest.first_chunk::<8>()) {
            let word = u64::from_le_bytes(*chunk);
            let zero = |bytes: u64| bytes.wrapping_sub(ONES) & !bytes & TOPS;
            let quote = zero(word ^ (ONES * u64::from(b'"')));
            let backslash = zero(word ^ (ONES * u64::from(b'\\')));
            let control = word.wrapping_sub(ONES * 0x20) & !word & TOPS;
            let found = quote | backslash | control;
            if found != 0 {
                self.at += (found.trailing_zeros() / 8) as usize;
                return;
            }
            self.at += 8;
        }
        while self.bytes.get(self.at).is_some_and(|byte| *byte >= 0x20 && *byte != b'"' && *byte != b'\\') {
            self.at += 1;
        }
    }

    fn escape(&mut self) -> Known<()> {
        self.at += 1;
        let letter = self.peek()?;
        self.at += 1;
        match letter {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Ok(()),
            b'u' => {
                let code = self.hex()?;
                match code {
                    0 | 0xdc00..=0xdfff => self.odd = true,
                    0xd800..=0xdbff => {
                        if !self.bytes[self.at..].starts_with(b"\\u") {
                            self.odd = true;
                            return Ok(());
                        }
                        self.at += 2;
                        let low = self.hex()?;
                        self.odd |= !(0xdc00..=0xdfff).contains(&low);
                    }
                    _ => {}
                }
                Ok(())
            }
            _ => Err(Unknown),
        }
    }

    fn hex(&mut self) -> Known<u32> {
        let digits = self.bytes.get(self.at..self.at + 4).ok_or(Unknown)?;
        self.at += 4;
        hex_of(digits)
    }
}

fn hex_of(digits: &[u8]) -> Known<u32> {
    digits
        .iter()
        .try_fold(0, |sum, byte| char::from(*byte).to_digit(16).map(|digit| sum << 4 | digit).ok_or(Unknown))
}

#[inline]
fn marked(key: &[u8]) -> u32 {
    match (key.first_chunk(), key.last_chunk()) {
        (Some(first), Some(last)) => {
            let ends = u32::from_le_bytes(*first) ^ u32::from_le_bytes(*last).rotate_left(11);
            ends ^ (key.len() as u32) << 27
        }
        _ => key.iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte)),
    }
}

/// Whether an object has a key twice.
fn repeats(bytes: &[u8], nodes: &[Node], object: u32) -> bool {
    let inside = || Inside { nodes, next: object + 1, end: nodes[object as usize].after };
    let key = |place: u32| {
        let (start, end) = nodes[place as usize].key;
        &bytes[start as usize..end as usize]
    };
    let count = inside().take(KEYS_COMPARED_MAX + 1).count();
    if count > KEYS_COMPARED_MAX {
        let mut keys: Vec<&[u8]> = inside().map(key).collect();
        keys.sort_unstable();
        return keys.windows(2).any(|pair| pair[0] == pair[1]);
    }
    let mut marks = [0; KEYS_COMPARED_MAX];
    for (number, place) in inside().enumerate() {
        let mark = nodes[place as usize].mark;
        if marks[..number].contains(&mark) && inside().take(number).any(|other| key(other) == key(place)) {
            return true;
        }
        marks[number] = mark;
    }
    false
}

fn unescaped(raw: &str) -> Known<String> {
    let mut text = String::with_capacity(raw.len());
    let mut chars = raw.chars();
    let code = |chars: &mut std::str::Chars<'_>| {
        let mut digits = [0; 4];
        for digit in &mut digits {
            *digit = u8::try_from(chars.next().ok_or(Unknown)?).map_err(|_| Unknown)?;
        }
        hex_of(&digits)
    };
    while let Some(one) = chars.next() {
        if one != '\\' {
            text.push(one);
            continue;
        }
        text.push(match chars.next().ok_or(Unknown)? {
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => {
                let mut point = code(&mut chars)?;
                if (0xd800..0xdc00).contains(&point) {
                    chars.next();
                    chars.next();
                    let low = code(&mut chars)?.checked_sub(0xdc00).ok_or(Unknown)?;
                    point = 0x10000 + ((point - 0xd800) << 10) + low;
                }
                char::from_u32(point).ok_or(Unknown)?
            }
            same => same,
        });
    }
    Ok(text)
}
