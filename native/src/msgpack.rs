//! MessagePack as msgspec writes it: every number and length in its shortest form.

/// What the native side leaves to Python: bytes or definitions that it does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unknown;

pub type Known<T> = Result<T, Unknown>;

const DEPTH_MAX: u32 = 64;

/// Reads values one after the other; whatever is not expected is `Unknown`, and never a panic.
#[derive(Clone, Copy)]
pub struct Reader<'a> {
    pub bytes: &'a [u8],
    pub at: usize,
    /// Whether a number was skipped that is too great to be calculated with here.
    pub wide: bool,
}

/// Numbers of this magnitude and greater are left to Python.
pub const WIDE: u128 = 1 << 53;

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Reader { bytes, at: 0, wide: false }
    }

    #[inline]
    pub fn done(&self) -> Known<()> {
        if self.at == self.bytes.len() { Ok(()) } else { Err(Unknown) }
    }

    #[inline]
    pub fn peek(&self) -> Known<u8> {
        self.bytes.get(self.at).copied().ok_or(Unknown)
    }

    #[inline]
    fn byte(&mut self) -> Known<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Ok(byte)
    }

    #[inline]
    fn take(&mut self, count: usize) -> Known<&'a [u8]> {
        let end = self.at.checked_add(count).ok_or(Unknown)?;
        let found = self.bytes.get(self.at..end).ok_or(Unknown)?;
        self.at = end;
        Ok(found)
    }

    #[inline]
    fn big(&mut self, count: usize) -> Known<u64> {
        Ok(self.take(count)?.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
    }

    #[inline]
    pub fn array(&mut self) -> Known<usize> {
        match self.byte()? {
            head @ 0x90..=0x9f => Ok((head & 0x0f) as usize),
            0xdc => Ok(self.big(2)? as usize),
            0xdd => Ok(self.big(4)? as usize),
            _ => Err(Unknown),
        }
    }

    #[inline]
    pub fn map(&mut self) -> Known<usize> {
        match self.byte()? {
            head @ 0x80..=0x8f => Ok((head & 0x0f) as usize),
            0xde => Ok(self.big(2)? as usize),
            0xdf => Ok(self.big(4)? as usize),
            _ => Err(Unknown),
        }
    }

    #[inline]
    pub fn int(&mut self) -> Known<i128> {
        match self.byte()? {
            head @ 0x00..=0x7f => Ok(i128::from(head)),
            head @ 0xe0..=0xff => Ok(i128::from(head as i8)),
            0xcc => Ok(i128::from(self.big(1)?)),
            0xcd => Ok(i128::from(self.big(2)?)),
            0xce => Ok(i128::from(self.big(4)?)),
            0xcf => Ok(i128::from(self.big(8)?)),
            0xd0 => Ok(i128::from(self.big(1)? as u8 as i8)),
            0xd1 => Ok(i128::from(self.big(2)? as u16 as i16)),
            0xd2 => Ok(i128::from(self.big(4)? as u32 as i32)),
            0xd3 => Ok(i128::from(self.big(8)? as i64)),
            _ => Err(Unknown),
        }
    }

    #[inline]
    pub fn i64(&mut self) -> Known<i64> {
        i64::try_from(self.int()?).map_err(|_| Unknown)
    }

    /// A number that can be calculated with: of less than 53 bits.
    #[inline]
    pub fn narrow(&mut self) -> Known<i64> {
        let number = self.i64()?;
        if u128::from(number.unsigned_abs()) < WIDE { Ok(number) } else { Err(Unknown) }
    }

    #[inline]
    pub fn u64(&mut self) -> Known<u64> {
        u64::try_from(self.int()?).map_err(|_| Unknown)
    }

    #[inline]
    pub fn bool(&mut self) -> Known<bool> {
        match self.byte()? {
            0xc2 => Ok(false),
            0xc3 => Ok(true),
            _ => Err(Unknown),
        }
    }

    #[inline]
    pub fn nil(&mut self) -> bool {
        let nil = self.bytes.get(self.at) == Some(&0xc0);
        self.at += usize::from(nil);
        nil
    }

    #[inline]
    pub fn str(&mut self) -> Known<&'a str> {
        let count = match self.byte()? {
            head @ 0xa0..=0xbf => (head & 0x1f) as usize,
            0xd9 => self.big(1)? as usize,
            0xda => self.big(2)? as usize,
            0xdb => self.big(4)? as usize,
            _ => return Err(Unknown),
        };
        std::str::from_utf8(self.take(count)?).map_err(|_| Unknown)
    }

    #[inline]
    pub fn bin(&mut self) -> Known<&'a [u8]> {
        let count = match self.byte()? {
            0xc4 => self.big(1)? as usize,
            0xc5 => self.big(2)? as usize,
            0xc6 => self.big(4)? as usize,
            _ => return Err(Unknown),
        };
        self.take(count)
    }

    #[inline]
    pub fn leaf(&mut self) -> Known<[u8; 16]> {
        self.bin()?.try_into().map_err(|_| Unknown)
    }

    /// Skip one value that Python would read without a complaint; maps of other keys than text are left to it.
    pub fn skip(&mut self) -> Known<()> {
        self.skip_within(0)
    }

    fn skip_within(&mut self, depth: u32) -> Known<()> {
        if depth > DEPTH_MAX {
            return Err(Unknown);
        }
        match self.peek()? {
            0xc0 | 0xc2 | 0xc3 => self.at += 1,
            0x00..=0x7f | 0xe0..=0xff => self.at += 1,
            0xcc..=0xd3 => self.wide |= self.int()?.unsigned_abs() >= WIDE,
            0xca => {
                self.take(5)?;
            }
            0xcb => {
                self.take(9)?;
            }
            0xa0..=0xbf | 0xd9..=0xdb => {
                self.str()?;
            }
            0xc4..=0xc6 => {
                self.bin()?;
            }
            0x90..=0x9f | 0xdc | 0xdd => {
                for _ in 0..self.array()? {
                    self.skip_within(depth + 1)?;
                }
            }
            0x80..=0x8f | 0xde | 0xdf => {
                for _ in 0..self.map()? {
                    self.str()?;
                    self.skip_within(depth + 1)?;
                }
            }
            _ => return Err(Unknown),
        }
        Ok(())
    }

    /// Skip a value and return its bytes, as they stand.
    pub fn raw(&mut self) -> Known<&'a [u8]> {
        let start = self.at;
        self.skip()?;
        Ok(&self.bytes[start..self.at])
    }
}

pub fn put_int(out: &mut Vec<u8>, number: i64) {
    if number >= 0 {
        put_uint(out, number as u64);
    } else if number >= -32 {
        out.push(number as i8 as u8);
    } else if number >= -(1 << 7) {
        out.push(0xd0);
        out.push(number as i8 as u8);
    } else if number >= -(1 << 15) {
        out.push(0xd1);
        out.extend_from_slice(&(number as i16).to_be_bytes());
    } else if number >= -(1 << 31) {
        out.push(0xd2);
        out.extend_from_slice(&(number as i32).to_be_bytes());
    } else {
        out.push(0xd3);
        out.extend_from_slice(&number.to_be_bytes());
    }
}

pub fn put_uint(out: &mut Vec<u8>, number: u64) {
    if number < 1 << 7 {
        out.push(number as u8);
    } else if number < 1 << 8 {
        out.push(0xcc);
        out.push(number as u8);
    } else if number < 1 << 16 {
        out.push(0xcd);
        out.extend_from_slice(&(number as u16).to_be_bytes());
    } else if number < 1 << 32 {
        out.push(0xce);
        out.extend_from_slice(&(number as u32).to_be_bytes());
    } else {
        out.push(0xcf);
        out.extend_from_slice(&number.to_be_bytes());
    }
}

/// Write an integer of any size as `encode_int` does: as text beyond 64 bits with a sign.
pub fn put_wide(out: &mut Vec<u8>, number: i128) {
    match i64::try_from(number) {
        Ok(small) => put_int(out, small),
        Err(_) => put_str(out, &number.to_string()),
    }
}

pub fn put_str(out: &mut Vec<u8>, text: &str) {
    let count = text.len();
    if count < 32 {
        out.push(0xa0 | count as u8);
    } else {
        put_length(out, count, [0xd9, 0xda, 0xdb]);
    }
    out.extend_from_slice(text.as_bytes());
}

pub fn put_bin(out: &mut Vec<u8>, bytes: &[u8]) {
    put_length(out, bytes.len(), [0xc4, 0xc5, 0xc6]);
    out.extend_from_slice(bytes);
}

fn put_length(out: &mut Vec<u8>, count: usize, heads: [u8; 3]) {
    if count < 1 << 8 {
        out.push(heads[0]);
        out.push(count as u8);
    } else if count < 1 << 16 {
        out.push(heads[1]);
        out.extend_from_slice(&(count as u16).to_be_bytes());
    } else {
        out.push(heads[2]);
        out.extend_from_slice(&(count as u32).to_be_bytes());
    }
}

pub fn put_array(out: &mut Vec<u8>, count: usize) {
    put_open(out, count, 0x90, [0xdc, 0xdd]);
}

pub fn put_map(out: &mut Vec<u8>, count: usize) {
    put_open(out, count, 0x80, [0xde, 0xdf]);
}

fn put_open(out: &mut Vec<u8>, count: usize, fix: u8, heads: [u8; 2]) {
    if count < 16 {
        out.push(fix | count as u8);
    } else if count < 1 << 16 {
        out.push(heads[0]);
        out.extend_from_slice(&(count as u16).to_be_bytes());
    } else {
        out.push(heads[1]);
        out.extend_from_slice(&(count as u32).to_be_bytes());
    }
}

pub fn put_bool(out: &mut Vec<u8>, flag: bool) {
    out.push(if flag { 0xc3 } else { 0xc2 });
}

pub const NIL: u8 = 0xc0;

/// Write one value as Python would write it after it had read it.
pub fn put_again(out: &mut Vec<u8>, reader: &mut Reader<'_>) -> Known<()> {
    put_again_within(out, reader, 0)
}

fn put_again_within(out: &mut Vec<u8>, reader: &mut Reader<'_>, depth: u32) -> Known<()> {
    if depth > DEPTH_MAX {
        return Err(Unknown);
    }
    match reader.peek()? {
        head @ (0xc0 | 0xc2 | 0xc3) => {
            reader.at += 1;
            out.push(head);
        }
        0x00..=0x7f | 0xcc..=0xd3 | 0xe0..=0xff => {
            let number = reader.int()?;
            match i64::try_from(number) {
                Ok(small) => put_int(out, small),
                Err(_) => put_uint(out, u64::try_from(number).map_err(|_| Unknown)?),
            }
        }
        0xcb => out.extend_from_slice(reader.take(9)?),
        0xa0..=0xbf | 0xd9..=0xdb => put_str(out, reader.str()?),
        0x90..=0x9f | 0xdc | 0xdd => {
            let count = reader.array()?;
            put_array(out, count);
            for _ in 0..count {
                put_again_within(out, reader, depth + 1)?;
            }
        }
        0x80..=0x8f | 0xde | 0xdf => {
            let count = reader.map()?;
            put_map(out, count);
            let mut keys = std::collections::HashSet::new();
            for _ in 0..count {
                let key = reader.str()?;
                if !keys.insert(key) {
                    return Err(Unknown);
                }
                put_str(out, key);
                put_again_within(out, reader, depth + 1)?;
            }
        }
        _ => return Err(Unknown),
    }
    Ok(())
}

/// A value as a tree; only definitions are read as such.
#[derive(Debug, Clone)]
pub enum Value {
    Nil,
    Bool(bool),
    Int(i128),
    Str(String),
    List(Vec<Value>),
    Map(Vec<(String, Value)>),
}

impl Value {
    pub fn parse(bytes: &[u8]) -> Known<Value> {
        let mut reader = Reader::new(bytes);
        let value = Value::read(&mut reader)?;
        reader.done()?;
        Ok(value)
    }

    fn read(reader: &mut Reader<'_>) -> Known<Value> {
        Ok(match reader.peek()? {
            0xc0 => {
                reader.nil();
                Value::Nil
            }
            0xc2 | 0xc3 => Value::Bool(reader.bool()?),
            0xa0..=0xbf | 0xd9..=0xdb => Value::Str(reader.str()?.to_owned()),
            0x90..=0x9f | 0xdc | 0xdd => {
                let count = reader.array()?;
                Value::List((0..count).map(|_| Value::read(reader)).collect::<Known<_>>()?)
            }
            0x80..=0x8f | 0xde | 0xdf => {
                let count = reader.map()?;
                let pair = |reader: &mut Reader<'_>| Ok((reader.str()?.to_owned(), Value::read(reader)?));
                Value::Map((0..count).map(|_| pair(reader)).collect::<Known<_>>()?)
            }
            _ => Value::Int(reader.int()?),
        })
    }

    pub fn get(&self, name: &str) -> Known<&Value> {
        match self {
            Value::Map(pairs) => {
                pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value).ok_or(Unknown)
            }
            _ => Err(Unknown),
        }
    }

    pub fn list(&self) -> Known<&[Value]> {
        if let Value::List(items) = self { Ok(items) } else { Err(Unknown) }
    }

    pub fn str(&self) -> Known<&str> {
        if let Value::Str(text) = self { Ok(text) } else { Err(Unknown) }
    }

    pub fn int(&self) -> Known<i128> {
        if let Value::Int(number) = self { Ok(*number) } else { Err(Unknown) }
    }

    pub fn i64(&self) -> Known<i64> {
        i64::try_from(self.int()?).map_err(|_| Unknown)
    }

    pub fn size(&self) -> Known<usize> {
        usize::try_from(self.int()?).map_err(|_| Unknown)
    }

    pub fn bool(&self) -> Known<bool> {
        if let Value::Bool(flag) = self { Ok(*flag) } else { Err(Unknown) }
    }

    pub fn is_nil(&self) -> bool {
        matches!(self, Value::Nil)
    }
}
