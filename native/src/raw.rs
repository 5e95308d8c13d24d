//! A value as its canonical MessagePack, short ones without an allocation: equal bytes, equal values.

use std::cmp::Ordering;

use crate::hashes;
use crate::msgpack::{self, Known, Reader, Unknown};

const INLINE: usize = 22;

#[derive(Clone)]
pub enum Raw {
    Short(u8, [u8; INLINE]),
    Long(Box<[u8]>),
}

impl Raw {
    pub fn of(bytes: &[u8]) -> Raw {
        if bytes.len() <= INLINE {
            let mut short = [0; INLINE];
            short[..bytes.len()].copy_from_slice(bytes);
            Raw::Short(bytes.len() as u8, short)
        } else {
            Raw::Long(bytes.into())
        }
    }

    pub fn of_str(text: &str) -> Raw {
        if text.len() < 32 && text.len() < INLINE {
            let mut short = [0; INLINE];
            short[0] = 0xa0 | text.len() as u8;
            short[1..=text.len()].copy_from_slice(text.as_bytes());
            return Raw::Short(text.len() as u8 + 1, short);
        }
        let mut out = Vec::with_capacity(text.len() + 5);
        msgpack::put_str(&mut out, text);
        Raw::of(&out)
    }

    pub fn of_int(number: i128) -> Known<Raw> {
        let mut out = Vec::with_capacity(9);
        match i64::try_from(number) {
            Ok(small) => msgpack::put_int(&mut out, small),
            Err(_) => msgpack::put_uint(&mut out, u64::try_from(number).map_err(|_| Unknown)?),
        }
        Ok(Raw::of(&out))
    }

    pub fn of_bool(flag: bool) -> Raw {
        Raw::of(&[if flag { 0xc3 } else { 0xc2 }])
    }

    pub fn nil() -> Raw {
        Raw::of(&[msgpack::NIL])
    }

    /// Read one value, as Python would write it again.
    pub fn read(reader: &mut Reader<'_>) -> Known<Raw> {
        let mut out = Vec::with_capacity(32);
        msgpack::put_again(&mut out, reader)?;
        Ok(Raw::of(&out))
    }

    /// Read a value that one can group by: a text, an integer or a boolean.
    pub fn read_key(reader: &mut Reader<'_>) -> Known<Raw> {
        match reader.peek()? {
            0xa0..=0xbf | 0xd9..=0xdb => Ok(Raw::of_str(reader.str()?)),
            0xc2 | 0xc3 => Ok(Raw::of_bool(reader.bool()?)),
            _ => Raw::of_int(reader.int()?),
        }
    }

    #[inline]
    pub fn bytes(&self) -> &[u8] {
        match self {
            Raw::Short(count, bytes) => &bytes[..*count as usize],
            Raw::Long(bytes) => bytes,
        }
    }

    /// The text that it is, if it is one.
    pub fn text(&self) -> Option<&str> {
        Reader::new(self.bytes()).str().ok()
    }

    /// What the estimates of size charge for a kept value: the length of texts, 9 for all else.
    pub fn charge(&self) -> i64 {
        fn charge(reader: &mut Reader<'_>) -> Known<i64> {
            match reader.peek()? {
                0xa0..=0xbf | 0xd9..=0xdb => Ok(chars(reader.str()?)),
                0x90..=0x9f | 0xdc | 0xdd => {
                    let count = reader.array()?;
                    let mut sum = 0;
                    for _ in 0..count {
                        sum += charge(reader)?;
                    }
                    Ok(sum)
                }
                _ => {
                    reader.skip()?;
                    Ok(9)
                }
            }
        }
        charge(&mut Reader::new(self.bytes())).unwrap_or(9)
    }

    /// A key's place in the order of caps; see `core/feature/caps.py`.
    pub fn rank(&self) -> u64 {
        let mut reader = Reader::new(self.bytes());
        let text = match self.bytes().first() {
            Some(0xc2) => "bool:False".to_owned(),
            Some(0xc3) => "bool:True".to_owned(),
            Some(0xa0..=0xbf | 0xd9..=0xdb) => format!("str:{}", reader.str().unwrap_or("")),
            _ => return rank_of_int(reader.int().unwrap_or(0)),
        };
        hashes::rank(text.as_bytes())
    }
}

/// As `Raw::rank`, of a number of any size.
pub fn rank_of_int(number: i128) -> u64 {
    hashes::rank(format!("int:{number}").as_bytes())
}

impl PartialEq for Raw {
    #[inline]
    fn eq(&self, other: &Raw) -> bool {
        match (self, other) {
            (Raw::Short(one, left), Raw::Short(two, right)) => one == two && left == right,
            _ => self.bytes() == other.bytes(),
        }
    }
}

impl Eq for Raw {}

impl PartialOrd for Raw {
    fn partial_cmp(&self, other: &Raw) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// As Python orders keys of one kind: texts by code points, numbers by value, False before True.
impl Ord for Raw {
    fn cmp(&self, other: &Raw) -> Ordering {
        let (one, two) = (self.bytes(), other.bytes());
        if let ([0xa0..=0xbf, left @ ..], [0xa0..=0xbf, right @ ..]) = (one, two) {
            return left.cmp(right);
        }
        match (self.text(), other.text()) {
            (Some(left), Some(right)) => left.cmp(right),
            (None, None) => match (Reader::new(one).int(), Reader::new(two).int()) {
                (Ok(left), Ok(right)) => left.cmp(&right),
                _ => one.cmp(two),
            },
            (left, right) => left.is_some().cmp(&right.is_some()),
        }
    }
}

/// The length of a text as Python has it, in code points.
#[inline]
pub fn chars(text: &str) -> i64 {
    if text.is_ascii() { text.len() as i64 } else { text.chars().count() as i64 }
}
