//! Declared fields: values as they are sent become values as they are kept, as `core/catalog/normalise.py` has it.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use crate::hash::Named;
use crate::hashes::Keyed;
use crate::instant;
use crate::json::{Kind, Tree};
use crate::msgpack::{Known, NIL, Unknown, Value, put_array, put_bool, put_int, put_str};

const NUMBER_MAX: i128 = (1 << 53) - 1;
const INSTANT_BYTES_MAX: usize = 64;
const WHOLE_DIGITS_MAX: usize = 15;
const FRACTION_DIGITS_MAX: usize = 15;
const TEXT_CHARS_KEPT: usize = 3;
/// The greatest text that a trait keeps that nobody declared.
const TRAIT_CHARS_MAX: usize = 1_000;

/// How many fields were dropped since nothing declares them.
pub type Undeclared = usize;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Protection {
    Plain,
    Truncate,
    Pseudonym,
}

enum FieldKind {
    Text { chars_max: usize },
    Integer,
    Decimal { scale: u32 },
    Money { currency_field: String, scale: Option<u32>, fallback: Option<Currency> },
    Bool,
    Instant,
    Enum { values: HashSet<String, Named> },
    Texts { chars_max: usize, items_max: usize },
    Objects { fields: Fields, currencies: Vec<String>, items_max: usize },
}

struct Field {
    kind: FieldKind,
    protection: Protection,
    required: bool,
}

type Currency = ([u8; 3], u32);

/// The fields of one event type, one kind of traits, or the items of one list.
pub struct Fields {
    /// None for a name that is known and not kept.
    by_name: HashMap<Vec<u8>, Option<Field>, Named>,
    required: usize,
}

/// What all fields of a catalog share.
pub struct Keeper {
    pseudonyms: Keyed,
    currencies: HashMap<[u8; 3], u32, Named>,
}

/// Where an amount looks for its currency: in its object, then among what those around it lend.
#[derive(Clone, Copy)]
struct Scope<'s> {
    object: u32,
    lent: &'s [(&'s str, u32)],
}

impl Scope<'_> {
    fn get(&self, tree: &Tree<'_>, name: &str) -> Option<u32> {
        let own = tree.get(Some(self.object), name.as_bytes());
        own.or_else(|| self.lent.iter().find(|(lent, _)| *lent == name).map(|(_, place)| *place))
    }
}

impl Keeper {
    pub fn new(pseudonym_key: &[u8], currencies: &Value) -> Known<Keeper> {
        let mut known = HashMap::default();
        for pair in currencies.list()? {
            let [code, exponent] = pair.list()? else { return Err(Unknown) };
            known.insert(code_of(code.str()?).ok_or(Unknown)?, power_of(exponent)?);
        }
        Ok(Keeper { pseudonyms: Keyed::new(pseudonym_key), currencies: known })
    }

    fn currency(&self, named: &str) -> Option<Currency> {
        let code = code_of(&named.to_ascii_uppercase())?;
        self.currencies.get(&code).map(|exponent| (code, *exponent))
    }

    /// A text's pseudonym: 16 bytes of its keyed hash in base64 of the alphabet for URLs.
    fn pseudonym(&self, text: &str) -> String {
        const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let digest = u128::from_be_bytes(self.pseudonyms.short(text.as_bytes()));
        (0..22)
            .map(|place| {
                let six = if place < 21 { digest >> (122 - 6 * place) } else { digest << 4 };
                char::from(LETTERS[(six & 63) as usize])
            })
            .collect()
    }

    /// Write an identifier's text as a protection leaves it.
    pub fn put_guarded(&self, guard: Guard, text: &str, out: &mut Vec<u8>) -> Known<()> {
        match guard {
            Guard::Drop => out.push(NIL),
            Guard::Truncate => put_str(out, &truncated(text)?),
            Guard::Pseudonym => put_str(out, &self.pseudonym(text)),
        }
        Ok(())
    }
}

/// A protection of a trait whose name is that of an identifier's type.
#[derive(Clone, Copy)]
pub enum Guard {
    Drop,
    Truncate,
    Pseudonym,
}

fn code_of(text: &str) -> Option<[u8; 3]> {
    text.as_bytes().try_into().ok()
}

fn power_of(value: &Value) -> Known<u32> {
    u32::try_from(value.int()?).ok().filter(|power| *power <= 9).ok_or(Unknown)
}

impl Fields {
    pub fn parse(value: &Value) -> Known<Fields> {
        let mut fields = Fields { by_name: HashMap::default(), required: 0 };
        for silent in value.get("silent")?.list()? {
            fields.by_name.insert(silent.str()?.as_bytes().to_vec(), None);
        }
        for one in value.get("fields")?.list()? {
            let field = Field::parse(one)?;
            fields.required += usize::from(field.required);
            fields.by_name.insert(one.get("name")?.str()?.as_bytes().to_vec(), Some(field));
        }
        // A field that is required and dropped is missing from every event: Python says so.
        if fields.required == value.get("required")?.size()? { Ok(fields) } else { Err(Unknown) }
    }

    /// Write the declared values of an object as a map; a null is as good as absent.
    pub fn apply(
        &self,
        keeper: &Keeper,
        tree: &Tree<'_>,
        object: Option<u32>,
        before: &[(&str, u32)],
        out: &mut Vec<u8>,
        undeclared: &mut Undeclared,
    ) -> Known<()> {
        let Some(object) = object else {
            let opened = open_map(out);
            let mut kept = Kept::default();
            for (name, place) in before {
                // Nothing is around that could name a currency; Python knows what to say to it.
                let none = Scope { object: *place, lent: &[] };
                self.keep(keeper, tree, (name.as_bytes(), *place), none, out, undeclared, &mut kept)?;
            }
            close_map(out, opened, kept.count);
            return if kept.required == self.required { Ok(()) } else { Err(Unknown) };
        };
        self.apply_within(keeper, tree, Scope { object, lent: &[] }, before, out, undeclared)
    }

    fn apply_within(
        &self,
        keeper: &Keeper,
        tree: &Tree<'_>,
        scope: Scope<'_>,
        before: &[(&str, u32)],
        out: &mut Vec<u8>,
        undeclared: &mut Undeclared,
    ) -> Known<()> {
        let opened = open_map(out);
        let mut kept = Kept::default();
        for (name, place) in before {
            if tree.get(Some(scope.object), name.as_bytes()).is_none() {
                self.keep(keeper, tree, (name.as_bytes(), *place), scope, out, undeclared, &mut kept)?;
            }
        }
        for place in tree.inside(scope.object) {
            self.keep(keeper, tree, (tree.key(place), place), scope, out, undeclared, &mut kept)?;
        }
        close_map(out, opened, kept.count);
        if kept.required == self.required { Ok(()) } else { Err(Unknown) }
    }

    #[allow(clippy::too_many_arguments)]
    fn keep(
        &self,
        keeper: &Keeper,
        tree: &Tree<'_>,
        (name, place): (&[u8], u32),
        scope: Scope<'_>,
        out: &mut Vec<u8>,
        undeclared: &mut Undeclared,
        kept: &mut Kept,
    ) -> Known<()> {
        match self.by_name.get(name) {
            Some(Some(field)) => {
                if tree.kind(place) != Kind::Null {
                    put_str(out, text_of(name)?);
                    field.convert(keeper, tree, place, scope, out, undeclared)?;
                    kept.count += 1;
                    kept.required += usize::from(field.required);
                }
            }
            Some(None) => {}
            None => *undeclared += 1,
        }
        Ok(())
    }

    /// Write the traits of an object as a map; null stays.
    pub fn apply_traits(
        &self,
        keeper: &Keeper,
        tree: &Tree<'_>,
        object: Option<u32>,
        keep_undeclared: bool,
        out: &mut Vec<u8>,
        undeclared: &mut Undeclared,
    ) -> Known<()> {
        let opened = open_map(out);
        let mut count = 0;
        if let Some(object) = object {
            let scope = Scope { object, lent: &[] };
            for place in tree.inside(object) {
                let name = tree.key(place);
                let found = self.by_name.get(name);
                let undone = out.len();
                put_str(out, text_of(name)?);
                match found {
                    Some(Some(_)) if tree.kind(place) == Kind::Null => out.push(NIL),
                    Some(Some(field)) => field.convert(keeper, tree, place, scope, out, undeclared)?,
                    None if keep_undeclared && put_scalar(tree, place, out)? => {}
                    _ => {
                        out.truncate(undone);
                        *undeclared += usize::from(found.is_none());
                        continue;
                    }
                }
                count += 1;
            }
        }
        close_map(out, opened, count);
        Ok(())
    }
}

#[derive(Default)]
struct Kept {
    count: usize,
    required: usize,
}

/// Write a plain value; false if it is none that a trait may be undeclared.
fn put_scalar(tree: &Tree<'_>, place: u32, out: &mut Vec<u8>) -> Known<bool> {
    match tree.kind(place) {
        Kind::Null => out.push(NIL),
        Kind::True => put_bool(out, true),
        Kind::False => put_bool(out, false),
        Kind::Int => {
            let number = int_of(tree.written(place)?)?;
            if number.abs() > NUMBER_MAX {
                return Ok(false);
            }
            put_int(out, number as i64);
        }
        Kind::Literal | Kind::Text => {
            let text = tree.text(place)?;
            if longer_than(&text, TRAIT_CHARS_MAX) {
                return Ok(false);
            }
            put_str(out, &text);
        }
        Kind::List | Kind::Object => return Ok(false),
    }
    Ok(true)
}

/// Open a map of fewer than sixteen pairs.
fn open_map(out: &mut Vec<u8>) -> usize {
    out.push(0x80);
    out.len()
}

fn close_map(out: &mut Vec<u8>, opened: usize, count: usize) {
    if count < 16 {
        out[opened - 1] |= count as u8;
    } else {
        let mut head = Vec::with_capacity(5);
        crate::msgpack::put_map(&mut head, count);
        out.splice(opened - 1..opened, head);
    }
}

fn text_of(bytes: &[u8]) -> Known<&str> {
    std::str::from_utf8(bytes).map_err(|_| Unknown)
}

#[inline]
pub fn longer_than(text: &str, chars_max: usize) -> bool {
    text.len() > chars_max && text.chars().count() > chars_max
}

impl Field {
    fn parse(value: &Value) -> Known<Field> {
        let chars_max = || value.get("chars_max")?.size();
        let items_max = || value.get("items_max")?.size();
        let optional = |name: &str| match value.get(name)? {
            Value::Nil => Ok(None),
            scale => power_of(scale).map(Some),
        };
        let kind = match value.get("kind")?.str()? {
            "string" => FieldKind::Text { chars_max: chars_max()? },
            "integer" => FieldKind::Integer,
            "decimal" => FieldKind::Decimal { scale: optional("scale")?.unwrap_or(0) },
            "money" => FieldKind::Money {
                currency_field: value.get("currency_field")?.str()?.to_owned(),
                scale: optional("scale")?,
                fallback: currency_of(value.get("fallback")?)?,
            },
            "boolean" => FieldKind::Bool,
            "datetime" => FieldKind::Instant,
            "enum" => FieldKind::Enum { values: texts_of(value.get("values")?)?.into_iter().collect() },
            "strings" => FieldKind::Texts { chars_max: chars_max()?, items_max: items_max()? },
            "objects" => FieldKind::Objects {
                fields: Fields::parse(value.get("plan")?)?,
                currencies: texts_of(value.get("currencies")?)?,
                items_max: items_max()?,
            },
            _ => return Err(Unknown),
        };
        let protection = match (value.get("protection")?.str()?, &kind) {
            ("plain", _) => Protection::Plain,
            ("truncate", FieldKind::Text { .. } | FieldKind::Instant | FieldKind::Texts { .. }) => {
                Protection::Truncate
            }
            (
                "pseudonym",
                FieldKind::Text { .. }
                | FieldKind::Integer
                | FieldKind::Enum { .. }
                | FieldKind::Texts { .. },
            ) => Protection::Pseudonym,
            _ => return Err(Unknown),
        };
        Ok(Field { kind, protection, required: value.get("required")?.bool()? })
    }

    fn convert(
        &self,
        keeper: &Keeper,
        tree: &Tree<'_>,
        place: u32,
        scope: Scope<'_>,
        out: &mut Vec<u8>,
        undeclared: &mut Undeclared,
    ) -> Known<()> {
        let kind = tree.kind(place);
        match &self.kind {
            FieldKind::Text { chars_max } => self.put_text(keeper, &shown(tree, place, *chars_max)?, out)?,
            FieldKind::Integer => {
                let number = match kind {
                    Kind::Int => int_of(tree.written(place)?)?,
                    _ => match scaled(&decimal_text(tree, place)?, 0)? {
                        (number, false) => number,
                        _ => return Err(Unknown),
                    },
                };
                let number = bounded(number)?;
                if self.protection == Protection::Pseudonym {
                    put_str(out, &keeper.pseudonym(&number.to_string()));
                } else {
                    put_int(out, number);
                }
            }
            FieldKind::Decimal { scale } => {
                put_int(out, bounded(amount(tree, place, *scale)?.0)?);
            }
            FieldKind::Money { currency_field, scale, fallback } => {
                let named = scope.get(tree, currency_field).filter(|found| tree.kind(*found) != Kind::Null);
                let (code, exponent) = match named {
                    None => (*fallback).ok_or(Unknown)?,
                    Some(found) if tree.kind(found) == Kind::Text => {
                        keeper.currency(&tree.text(found)?).ok_or(Unknown)?
                    }
                    Some(_) => return Err(Unknown),
                };
                let (minor, fraction) = amount(tree, place, scale.unwrap_or(exponent))?;
                if fraction && exponent == 0 && scale.is_none() {
                    return Err(Unknown);
                }
                put_array(out, 2);
                put_int(out, bounded(minor)?);
                put_str(out, text_of(&code)?);
            }
            FieldKind::Bool => match kind {
                Kind::True => put_bool(out, true),
                Kind::False => put_bool(out, false),
                _ => return Err(Unknown),
            },
            FieldKind::Instant => {
                let text = tree.text(place)?;
                if kind != Kind::Text || text.len() > INSTANT_BYTES_MAX {
                    return Err(Unknown);
                }
                let at_ms = instant::parse(&text)?;
                let kept =
                    if self.protection == Protection::Plain { at_ms } else { instant::month_of(at_ms) };
                put_int(out, kept);
            }
            FieldKind::Enum { values } => {
                let text = tree.text(place)?;
                if kind != Kind::Text || !values.contains(&*text) {
                    return Err(Unknown);
                }
                self.put_text(keeper, &text, out)?;
            }
            FieldKind::Texts { chars_max, items_max } => {
                let count = count_of(tree, place, *items_max)?;
                put_array(out, count);
                for item in tree.inside(place) {
                    self.put_text(keeper, &shown(tree, item, *chars_max)?, out)?;
                }
            }
            FieldKind::Objects { fields, currencies, items_max } => {
                let count = count_of(tree, place, *items_max)?;
                put_array(out, count);
                // Looked for once a list: its items may be many, and what is around them great.
                let mut lent = Vec::new();
                for name in currencies {
                    lent.extend(scope.get(tree, name).map(|found| (name.as_str(), found)));
                }
                for item in tree.inside(place) {
                    if tree.kind(item) != Kind::Object {
                        return Err(Unknown);
                    }
                    let inner = Scope { object: item, lent: &lent };
                    fields.apply_within(keeper, tree, inner, &[], out, undeclared)?;
                }
            }
        }
        Ok(())
    }

    fn put_text(&self, keeper: &Keeper, text: &str, out: &mut Vec<u8>) -> Known<()> {
        match self.protection {
            Protection::Plain => put_str(out, text),
            Protection::Truncate => put_str(out, &truncated(text)?),
            Protection::Pseudonym => put_str(out, &keeper.pseudonym(text)),
        }
        Ok(())
    }
}

fn texts_of(value: &Value) -> Known<Vec<String>> {
    value.list()?.iter().map(|one| Ok(one.str()?.to_owned())).collect()
}

fn currency_of(value: &Value) -> Known<Option<Currency>> {
    let [code, exponent] = value.list()? else { return Err(Unknown) };
    match code.str()? {
        "" => Ok(None),
        code => Ok(Some((code_of(code).ok_or(Unknown)?, power_of(exponent)?))),
    }
}

fn count_of(tree: &Tree<'_>, place: u32, items_max: usize) -> Known<usize> {
    let count = tree.inside(place).count();
    if tree.kind(place) == Kind::List && count <= items_max { Ok(count) } else { Err(Unknown) }
}

/// A text, or a number's digits as they were written.
fn shown<'a>(tree: &Tree<'a>, place: u32, chars_max: usize) -> Known<Cow<'a, str>> {
    let text = match tree.kind(place) {
        Kind::Text | Kind::Int | Kind::Literal => tree.text(place)?,
        _ => return Err(Unknown),
    };
    if longer_than(&text, chars_max) { Err(Unknown) } else { Ok(text) }
}

fn int_of(digits: &str) -> Known<i128> {
    digits.parse().map_err(|_| Unknown)
}

fn bounded(number: i128) -> Known<i64> {
    if number.abs() <= NUMBER_MAX { Ok(number as i64) } else { Err(Unknown) }
}

fn decimal_text<'a>(tree: &Tree<'a>, place: u32) -> Known<Cow<'a, str>> {
    match tree.kind(place) {
        Kind::Text | Kind::Literal => tree.text(place),
        _ => Err(Unknown),
    }
}

/// A number in units of 10 to the minus `scale`, and whether its text has a fraction.
fn amount(tree: &Tree<'_>, place: u32, scale: u32) -> Known<(i128, bool)> {
    if tree.kind(place) == Kind::Int {
        return Ok((int_of(tree.written(place)?)? * 10_i128.pow(scale), false));
    }
    scaled(&decimal_text(tree, place)?, scale)
}

/// A decimal's text as a whole number of units, half away from zero.
fn scaled(text: &str, scale: u32) -> Known<(i128, bool)> {
    let (minus, digits) = match text.as_bytes() {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        all => (false, all),
    };
    let point = digits.iter().position(|byte| *byte == b'.');
    let (whole, fraction) = match point {
        Some(at) if at + 1 < digits.len() => (&digits[..at], &digits[at + 1..]),
        Some(_) => return Err(Unknown),
        None => (digits, &[][..]),
    };
    if whole.is_empty() || whole.len() > WHOLE_DIGITS_MAX || fraction.len() > FRACTION_DIGITS_MAX {
        return Err(Unknown);
    }
    let mut value: i128 = 0;
    for byte in whole.iter().chain(fraction) {
        if !byte.is_ascii_digit() {
            return Err(Unknown);
        }
        value = value * 10 + i128::from(byte - b'0');
    }
    let shift = scale as i32 - fraction.len() as i32;
    if shift >= 0 {
        value *= 10_i128.pow(shift as u32);
    } else {
        let divisor = 10_i128.pow(shift.unsigned_abs());
        value = (2 * value + divisor) / (2 * divisor);
    }
    Ok((if minus { -value } else { value }, fraction.iter().any(|byte| *byte != b'0')))
}

/// A text with what singles out a person cut off; addresses of version 6 are Python's.
fn truncated(text: &str) -> Known<Cow<'_, str>> {
    if !text.bytes().all(|byte| (0x20..0x7f).contains(&byte)) {
        return Err(Unknown);
    }
    let text = text.trim_matches(' ');
    let start = || Cow::Borrowed(text.get(..TEXT_CHARS_KEPT).unwrap_or(text));
    if let Some((local, domain)) = text.rsplit_once('@') {
        let address = !local.contains('@') && domain.contains('.');
        return Ok(if address { Cow::Owned(domain.to_ascii_lowercase()) } else { start() });
    }
    if text.contains(':') {
        return Err(Unknown);
    }
    if text.bytes().filter(|byte| *byte == b'.').count() == 3 {
        let (network, host) = text.rsplit_once('.').ok_or(Unknown)?;
        let octet = |part: &str| {
            let plain = (1..=3).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
            plain && (part.len() == 1 || !part.starts_with('0')) && part.parse::<u8>().is_ok()
        };
        if !network.split('.').all(octet) || !octet(host) {
            return Err(Unknown);
        }
        return Ok(Cow::Owned(format!("{network}.0")));
    }
    Ok(start())
}
