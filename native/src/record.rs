//! A record of the log, found in its bytes: where each part is, and nothing copied.

use std::ops::Range;

use crate::msgpack::{Known, Reader, Unknown};

pub const PRIMARY: i64 = 1;
pub const LOST: i64 = 5;
/// Ends a partition, which is for Python to note.
pub const SEAL: i64 = 4;

/// Where the parts of a record are in its bytes; numbers are read already.
pub struct Found {
    pub kind: i64,
    pub leaf: [u8; 16],
    pub id_type: Range<usize>,
    pub event_id: u64,
    pub type_: Range<usize>,
    pub name: Range<usize>,
    pub occurred_at_ms: i64,
    pub received_at_ms: i64,
    pub source_rank: i64,
    pub verified: bool,
    pub evidence: Range<usize>,
    pub identifiers: Range<usize>,
    pub edges: Range<usize>,
    pub properties: Range<usize>,
    pub traits: Range<usize>,
    pub job: Range<usize>,
    pub bare: bool,
}

const FIELDS: usize = 21;
const REQUIRED: usize = 15;
const RECORD_FORMAT: i64 = 1;

impl Found {
    /// Find the parts; whatever msgspec might read otherwise, or not at all, is left to Python.
    pub fn find(bytes: &[u8]) -> Known<Found> {
        let reader = &mut Reader::new(bytes);
        let count = reader.array()?;
        if !(REQUIRED..=FIELDS).contains(&count) || reader.i64()? != RECORD_FORMAT {
            return Err(Unknown);
        }
        let kind = reader.i64()?;
        reader.str()?; // the tenant
        let leaf = reader.leaf()?;
        let id_type = text(reader)?;
        let event_id = reader.u64()?;
        reader.str()?; // the message's id
        let type_ = text(reader)?;
        let name = text(reader)?;
        let occurred_at_ms = reader.narrow()?;
        let received_at_ms = reader.narrow()?;
        reader.str()?; // the source
        let source_rank = reader.narrow()?;
        let verified = reader.bool()?;
        let evidence = evidence(reader)?;
        let mut found = Found {
            kind,
            leaf,
            id_type,
            event_id,
            type_,
            name,
            occurred_at_ms,
            received_at_ms,
            source_rank,
            verified,
            evidence,
            identifiers: 0..0,
            edges: 0..0,
            properties: 0..0,
            traits: 0..0,
            job: 0..0,
            bare: false,
        };
        if count > 15 {
            found.identifiers = identifiers(reader)?;
        }
        if count > 16 {
            found.edges = edges(reader)?;
        }
        if count > 17 {
            found.properties = mapping(reader)?;
        }
        if count > 18 {
            found.traits = mapping(reader)?;
        }
        if count > 19 {
            found.job = text(reader)?;
        }
        if count > 20 {
            found.bare = reader.bool()?;
        }
        reader.done()?;
        if reader.wide { Err(Unknown) } else { Ok(found) }
    }
}

/// A reader of one part; of a part that is not there, of an empty list.
pub fn part<'a>(bytes: &'a [u8], range: &Range<usize>) -> Reader<'a> {
    Reader::new(if range.is_empty() { &[0x90] } else { &bytes[range.clone()] })
}

/// A text of a record, found before.
pub fn text_at<'a>(bytes: &'a [u8], range: &Range<usize>) -> &'a str {
    std::str::from_utf8(&bytes[range.clone()]).unwrap_or("")
}

fn text(reader: &mut Reader<'_>) -> Known<Range<usize>> {
    let count = reader.str()?.len();
    Ok(reader.at - count..reader.at)
}

fn evidence(reader: &mut Reader<'_>) -> Known<Range<usize>> {
    let start = reader.at;
    // What it says is read once for all records that carry it, and of links never: that it can be is asked here.
    let count = reader.array()?;
    if !(1..=5).contains(&count) {
        return Err(Unknown);
    }
    reader.str()?;
    for _ in 1..count.min(3) {
        for _ in 0..reader.array()? {
            reader.str()?;
        }
    }
    if count > 3 {
        reader.str()?;
    }
    if count > 4 {
        for _ in 0..reader.array()? {
            if reader.array()? != 2 {
                return Err(Unknown);
            }
            reader.str()?;
            reader.str()?;
        }
    }
    Ok(start..reader.at)
}

fn identifiers(reader: &mut Reader<'_>) -> Known<Range<usize>> {
    let start = reader.at;
    for _ in 0..reader.array()? {
        let count = reader.array()?;
        if !(2..=3).contains(&count) {
            return Err(Unknown);
        }
        reader.str()?;
        reader.bin()?;
        if count > 2 && !reader.nil() {
            reader.str()?;
        }
    }
    Ok(start..reader.at)
}

fn edges(reader: &mut Reader<'_>) -> Known<Range<usize>> {
    let start = reader.at;
    for _ in 0..reader.array()? {
        let count = reader.array()?;
        if !(8..=11).contains(&count) {
            return Err(Unknown);
        }
        reader.str()?;
        reader.leaf()?;
        reader.str()?;
        reader.leaf()?;
        reader.narrow()?;
        reader.u64()?;
        reader.str()?;
        reader.bool()?;
        if count > 8 {
            reader.bool()?;
        }
        for _ in 9..count {
            reader.narrow()?;
        }
    }
    Ok(start..reader.at)
}

fn mapping(reader: &mut Reader<'_>) -> Known<Range<usize>> {
    let start = reader.at;
    { *reader }.map()?;
    reader.skip()?;
    Ok(start..reader.at)
}
