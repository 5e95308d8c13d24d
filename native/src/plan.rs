//! The definitions as they are handed over by `core/feature/handover.py`.

use std::collections::HashMap;

use crate::acc::{Kind, Spec, Val, Weights};
use crate::cell::{Cell, Grid, Layout};
use crate::msgpack::{Known, Reader, Unknown, Value, WIDE};
use crate::raw::Raw;
use crate::zone::{Period, Zone};

/// An expression over an event's fields: null where Python's conditions do not hold.
#[derive(Debug)]
pub enum Tree {
    Field(usize),
    Int(i128),
    Str(String),
    Bool(bool),
    Money(i128, String),
    Neg(Box<Tree>),
    Scale(Box<Tree>, i128),
    Add(Box<Tree>, Box<Tree>),
    Sub(Box<Tree>, Box<Tree>),
    Mul(Box<Tree>, Box<Tree>),
    Compare(Comparison, Box<Tree>, Box<Tree>),
    In(Box<Tree>, Vec<Tree>),
    Known(Box<Tree>),
    And(Box<Tree>, Box<Tree>),
    Or(Box<Tree>, Box<Tree>),
    Not(Box<Tree>),
}

#[derive(Debug, Clone, Copy)]
pub enum Comparison {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
}

impl Tree {
    fn parse(value: &Value) -> Known<Tree> {
        let parts = value.list()?;
        let part = |place: usize| parts.get(place).ok_or(Unknown);
        let tree = |place: usize| Ok::<_, Unknown>(Box::new(Tree::parse(part(place)?)?));
        Ok(match part(0)?.str()? {
            "field" => Tree::Field(part(1)?.size()?),
            "int" => Tree::Int(part(1)?.int()?),
            "str" => Tree::Str(part(1)?.str()?.to_owned()),
            "bool" => Tree::Bool(part(1)?.bool()?),
            "money" => Tree::Money(part(1)?.int()?, part(2)?.str()?.to_owned()),
            "neg" => Tree::Neg(tree(1)?),
            "scale" => Tree::Scale(tree(1)?, part(2)?.int()?),
            "add" => Tree::Add(tree(1)?, tree(2)?),
            "sub" => Tree::Sub(tree(1)?, tree(2)?),
            "mul" => Tree::Mul(tree(1)?, tree(2)?),
            "eq" => Tree::Compare(Comparison::Eq, tree(1)?, tree(2)?),
            "ne" => Tree::Compare(Comparison::Ne, tree(1)?, tree(2)?),
            "lt" => Tree::Compare(Comparison::Lt, tree(1)?, tree(2)?),
            "le" => Tree::Compare(Comparison::Le, tree(1)?, tree(2)?),
            "gt" => Tree::Compare(Comparison::Gt, tree(1)?, tree(2)?),
            "ge" => Tree::Compare(Comparison::Ge, tree(1)?, tree(2)?),
            "in" => {
                let listed = part(2)?.list()?.iter().map(Tree::parse).collect::<Known<_>>()?;
                Tree::In(tree(1)?, listed)
            }
            "known" => Tree::Known(tree(1)?),
            "and" => Tree::And(tree(1)?, tree(2)?),
            "or" => Tree::Or(tree(1)?, tree(2)?),
            "not" => Tree::Not(tree(1)?),
            _ => return Err(Unknown),
        })
    }

    pub fn value<'v>(&'v self, fields: &[Val<'v>]) -> Val<'v> {
        match self {
            Tree::Field(place) => fields.get(*place).cloned().unwrap_or(Val::None),
            Tree::Int(number) => Val::Int(*number),
            Tree::Str(text) => Val::Str(text),
            Tree::Bool(flag) => Val::Bool(*flag),
            Tree::Money(amount, currency) => Val::Money(*amount, currency),
            Tree::Neg(one) => match one.value(fields) {
                Val::Int(number) => Val::Int(-number),
                Val::Money(amount, currency) => Val::Money(-amount, currency),
                _ => Val::None,
            },
            Tree::Scale(one, factor) => match one.value(fields) {
                Val::Int(number) => Val::Int(number * factor),
                _ => Val::None,
            },
            Tree::Add(one, other) => both(one.value(fields), other.value(fields), |a, b| a + b),
            Tree::Sub(one, other) => both(one.value(fields), other.value(fields), |a, b| a - b),
            Tree::Mul(one, other) => match (one.value(fields), other.value(fields)) {
                (Val::Int(one), Val::Int(other)) => Val::Int(one * other),
                (Val::Money(one, currency), Val::Int(other))
                | (Val::Int(other), Val::Money(one, currency)) => Val::Money(one * other, currency),
                _ => Val::None,
            },
            Tree::Compare(how, one, other) => compared(*how, &one.value(fields), &other.value(fields)),
            Tree::In(one, listed) => match one.value(fields) {
                Val::None => Val::None,
                subject => {
                    let same = |tree: &Tree| match (&subject, tree.value(fields)) {
                        (Val::Int(one), Val::Int(other)) => *one == other,
                        (Val::Str(one), Val::Str(other)) => *one == other,
                        (Val::Bool(one), Val::Bool(other)) => *one == other,
                        _ => false,
                    };
                    Val::Bool(listed.iter().any(same))
                }
            },
            Tree::Known(one) => Val::Bool(!matches!(one.value(fields), Val::None)),
            Tree::And(one, other) => match (one.truth(fields), other.truth(fields)) {
                (Some(false), _) | (_, Some(false)) => Val::Bool(false),
                (Some(true), Some(true)) => Val::Bool(true),
                _ => Val::None,
            },
            Tree::Or(one, other) => match (one.truth(fields), other.truth(fields)) {
                (Some(true), _) | (_, Some(true)) => Val::Bool(true),
                (Some(false), Some(false)) => Val::Bool(false),
                _ => Val::None,
            },
            Tree::Not(one) => one.truth(fields).map_or(Val::None, |flag| Val::Bool(!flag)),
        }
    }

    /// Whether it is surely true or surely false.
    pub fn truth(&self, fields: &[Val<'_>]) -> Option<bool> {
        // A tree outlives no field that it is asked about.
        match self.value_of(fields) {
            Val::Bool(flag) => Some(flag),
            _ => None,
        }
    }

    fn value_of<'v>(&'v self, fields: &[Val<'v>]) -> Val<'v> {
        self.value(fields)
    }
}

fn both<'v>(one: Val<'v>, other: Val<'v>, how: impl Fn(i128, i128) -> i128) -> Val<'v> {
    match (one, other) {
        (Val::Int(one), Val::Int(other)) => Val::Int(how(one, other)),
        (Val::Money(one, currency), Val::Money(other, same)) if currency == same => {
            Val::Money(how(one, other), currency)
        }
        _ => Val::None,
    }
}

fn compared<'v>(how: Comparison, one: &Val<'_>, other: &Val<'_>) -> Val<'v> {
    let order = match (one, other) {
        (Val::Int(one), Val::Int(other)) => one.cmp(other),
        (Val::Str(one), Val::Str(other)) => one.cmp(other),
        (Val::Bool(one), Val::Bool(other)) => one.cmp(other),
        (Val::Money(one, currency), Val::Money(other, same)) if currency == same => one.cmp(other),
        _ => return Val::None,
    };
    Val::Bool(match how {
        Comparison::Eq => order.is_eq(),
        Comparison::Ne => order.is_ne(),
        Comparison::Lt => order.is_lt(),
        Comparison::Le => order.is_le(),
        Comparison::Gt => order.is_gt(),
        Comparison::Ge => order.is_ge(),
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FieldKind {
    Text,
    Number,
    Flag,
    Money,
    List,
}

#[derive(Debug)]
struct Field {
    /// The list that it is in, as a number from 1; 0 for the event itself.
    list: usize,
    name: String,
    kind: FieldKind,
}

/// How one cell takes an event.
struct Program {
    cell: usize,
    filter: Option<Tree>,
    key: Option<Tree>,
    /// One part, or several that make a record.
    parts: Vec<Tree>,
    group: Option<Tree>,
    /// The value goes into the accumulator, and is not only asked to be known.
    folds_value: bool,
    /// The text of values counts as size.
    charges_text: bool,
    key_is_text: bool,
    group_is_text: bool,
    text_parts: Vec<bool>,
}

struct Group {
    mask: u64,
    charge: i64,
    programs: Vec<Program>,
}

/// How one event type is folded.
pub struct Event {
    fields: Vec<Field>,
    direct: Vec<Group>,
    lists: Vec<(String, Vec<Group>)>,
}

pub enum Folding {
    Here(Box<Event>),
    InPython,
}

pub struct Plan {
    pub fingerprint: String,
    /// None for a cell whose states only Python knows.
    pub cells: Vec<Option<Cell>>,
    pub events: HashMap<String, Folding>,
    pub weights: Weights,
    /// Whether a cell has calendar periods.
    pub calendar: bool,
    pub zone: Zone,
}

const EACH_MAX: usize = 1_000;
const ITEM_BITS: u32 = 10;

impl Plan {
    pub fn parse(raw: &[u8]) -> Known<Plan> {
        let given = Value::parse(raw)?;
        let cells = given.get("cells")?.list()?.iter().map(parse_cell).collect::<Known<Vec<_>>>()?;
        let by_calendar = |cell: &Cell| matches!(cell.grid, Grid::Calendar { .. });
        let calendar = cells.iter().flatten().any(by_calendar);
        let mut events = HashMap::new();
        for event in given.get("events")?.list()? {
            let name = event.get("name")?.str()?.to_owned();
            events.insert(name, Folding::Here(Box::new(parse_event(event)?)));
        }
        for name in given.get("python")?.list()? {
            events.insert(name.str()?.to_owned(), Folding::InPython);
        }
        let table = |value: &Value| value.list()?.iter().map(Value::int).collect::<Known<Vec<_>>>();
        let tables = given.get("weights")?.list()?;
        let [coarse, middle, fine] = tables else { return Err(Unknown) };
        let tables = [table(coarse)?, table(middle)?, table(fine)?];
        if tables.iter().any(|table| table.len() != 1024) {
            return Err(Unknown);
        }
        let fingerprint = given.get("fingerprint")?.str()?.to_owned();
        let weights = Weights::new(tables);
        Ok(Plan { fingerprint, cells, events, weights, calendar, zone: Zone::default() })
    }

    /// Fold an event into a leaf's states; return the bound of the bytes that they grew by.
    pub fn fold(
        &self,
        event: &Event,
        states: &mut [crate::cell::State],
        properties: &[u8],
        at: i64,
        event_id: u64,
        mask: u64,
    ) -> i64 {
        let mut fields = vec![Val::None; event.fields.len()];
        let mut lists: Vec<Option<Reader<'_>>> = vec![None; event.lists.len()];
        event.load(properties, 0, &mut fields, &mut lists);
        let mut size = 0;
        for group in &event.direct {
            size += self.fold_group(group, states, &fields, at, event_id, mask);
        }
        for (place, (_, groups)) in event.lists.iter().enumerate() {
            let Some(mut items) = lists[place] else { continue };
            let Ok(count) = items.array() else { continue };
            let mut number = event_id >> ITEM_BITS << ITEM_BITS;
            for _ in 0..count.min(EACH_MAX) {
                let Ok(item) = items.raw() else { break };
                if Reader::new(item).map().is_err() {
                    continue;
                }
                for (field, value) in event.fields.iter().zip(&mut fields) {
                    if field.list == place + 1 {
                        *value = Val::None;
                    }
                }
                event.load(item, place + 1, &mut fields, &mut []);
                for group in groups {
                    size += self.fold_group(group, states, &fields, at, number, mask);
                }
                number += 1;
            }
        }
        size
    }

    fn fold_group(
        &self,
        group: &Group,
        states: &mut [crate::cell::State],
        fields: &[Val<'_>],
        at: i64,
        event: u64,
        mask: u64,
    ) -> i64 {
        if mask & group.mask != group.mask {
            return 0;
        }
        let mut size = group.charge;
        for program in &group.programs {
            size += self.fold_cell(program, states, fields, at, event).unwrap_or(0);
        }
        size
    }

    /// Return the texts' lengths, or None if a condition does not hold.
    fn fold_cell(
        &self,
        program: &Program,
        states: &mut [crate::cell::State],
        fields: &[Val<'_>],
        at: i64,
        event: u64,
    ) -> Option<i64> {
        let cell = self.cells[program.cell].as_ref()?;
        let state = &mut states[program.cell];
        if program.filter.as_ref().is_some_and(|filter| filter.truth(fields) != Some(true)) {
            return None;
        }
        let key = known(program.key.as_ref(), fields)?;
        let mut size = 0;
        let value = match program.parts.as_slice() {
            [] => Val::None,
            [part] => match value_in(part, fields) {
                Val::None => return None,
                value => value,
            },
            parts => {
                let values: Vec<Val<'_>> = parts.iter().map(|part| value_in(part, fields)).collect();
                if values.iter().all(|value| matches!(value, Val::None)) {
                    return None;
                }
                if program.charges_text {
                    for (value, text) in values.iter().zip(&program.text_parts) {
                        if *text {
                            size += text_of(value).unwrap_or(9);
                        }
                    }
                }
                let mut out = Vec::with_capacity(64);
                crate::msgpack::put_array(&mut out, values.len());
                values.iter().for_each(|value| out.extend_from_slice(value.raw().bytes()));
                Val::Parts(Raw::of(&out))
            }
        };
        let group = known(program.group.as_ref(), fields)?;
        if program.charges_text {
            if let ([true], Some(text)) = (program.text_parts.as_slice(), text_of(&value)) {
                size += text;
            }
            if let (true, Some(key)) = (program.key_is_text, &key) {
                size += text_of(key).unwrap_or(0);
            }
        }
        if let (true, Some(group)) = (program.group_is_text, &group) {
            size += text_of(group).unwrap_or(0);
        }
        let value = if program.folds_value { value } else { Val::None };
        match (group, key) {
            (None, None) => cell.add(state, &value, at, event, (&self.weights, &self.zone)),
            (None, Some(key)) => cell.add_keyed(state, key.raw(), &value, at, event, &self.zone),
            (Some(group), key) => {
                if let Some(acc) = cell.group(state, &group.raw(), at, &self.zone) {
                    match key {
                        None => cell.spec.add(acc, &value, at, event, &self.weights),
                        Some(key) => cell.spec.add_keyed(acc, key.raw(), &value, at, event),
                    }
                }
            }
        }
        Some(size)
    }
}

/// The value of an optional expression; None if there is one and it is null.
fn known<'v>(tree: Option<&'v Tree>, fields: &[Val<'v>]) -> Option<Option<Val<'v>>> {
    match tree.map(|tree| tree.value(fields)) {
        Some(Val::None) => None,
        value => Some(value),
    }
}

fn value_in<'v>(tree: &'v Tree, fields: &[Val<'v>]) -> Val<'v> {
    tree.value(fields)
}

fn text_of(value: &Val<'_>) -> Option<i64> {
    if let Val::Str(text) = value { Some(crate::raw::chars(text)) } else { None }
}

impl Event {
    fn load<'r>(&self, map: &'r [u8], list: usize, fields: &mut [Val<'r>], lists: &mut [Option<Reader<'r>>]) {
        let mut reader = Reader::new(map);
        let Ok(count) = reader.map() else { return };
        for _ in 0..count {
            let Ok(name) = reader.str() else { return };
            let before = reader;
            if reader.skip().is_err() {
                return;
            }
            for (field, value) in self.fields.iter().zip(fields.iter_mut()) {
                if field.list == list && field.name == name {
                    *value = field.kind.load(before);
                }
            }
            if list == 0 {
                for ((named, _), found) in self.lists.iter().zip(lists.iter_mut()) {
                    if named == name {
                        let is_list = { before }.array().is_ok();
                        *found = is_list.then_some(before);
                    }
                }
            }
        }
    }
}

impl FieldKind {
    fn load(self, mut reader: Reader<'_>) -> Val<'_> {
        let found = match self {
            FieldKind::Text => reader.str().map(Val::Str),
            FieldKind::Number => reader.int().map(Val::Int),
            FieldKind::Flag => reader.bool().map(Val::Bool),
            FieldKind::Money => match reader.array() {
                Ok(2) => reader.int().and_then(|amount| Ok(Val::Money(amount, reader.str()?))),
                _ => Err(Unknown),
            },
            FieldKind::List => reader.array().map(|_| Val::Bool(true)),
        };
        found.unwrap_or(Val::None)
    }
}

fn parse_cell(value: &Value) -> Known<Option<Cell>> {
    if value.is_nil() {
        return Ok(None);
    }
    let params = value.get("params")?;
    let size = |name: &str| params.get(name)?.size();
    let kind = match value.get("state")?.str()? {
        "count" => Kind::Count,
        "sum" => Kind::Sum,
        "min" => Kind::Min,
        "max" => Kind::Max,
        "moments" => Kind::Moments,
        "histogram" => Kind::Histogram,
        "first" => Kind::First,
        "last" => Kind::Last,
        "last_k" => Kind::LastK {
            k: size("k")?,
            distinct: params.get("distinct")?.bool()?,
            keyed: params.get("keyed")?.bool()?,
        },
        "latest" => Kind::Latest,
        "instants" => Kind::Instants { k: size("k")? },
        "top_k" => Kind::TopK { cap: size("cap")? },
        "distinct" => Kind::Distinct { cap: size("cap")?, precision: size("precision")? as u32 },
        "decay" | "decay_sum" => Kind::Decay {
            half_life_ms: params.get("half_life_ms")?.i64()?,
            counts: value.get("state")?.str()? == "decay",
        },
        "sessions" => Kind::Sessions { gap_ms: params.get("gap_ms")?.i64()? },
        _ => return Err(Unknown),
    };
    let layout = match value.get("layout")?.str()? {
        "register" => Layout::Register,
        "tiled" => Layout::Tiled,
        _ => Layout::Grouped,
    };
    let optional = |name: &str| {
        let found = value.get(name)?;
        if found.is_nil() {
            return Ok(None);
        }
        // Instants are reckoned with it.
        let number = found.i64()?;
        if u128::from(number.unsigned_abs()) < WIDE { Ok(Some(number)) } else { Err(Unknown) }
    };
    let period = value.get("period")?;
    let grid = if period.is_nil() {
        let width_ms = value.get("width_ms")?.i64()?;
        if width_ms <= 0 {
            return Err(Unknown);
        }
        Grid::Fixed { width_ms, window_ms: optional("window_ms")? }
    } else {
        let period = match period.str()? {
            "hour" => Period::Hour,
            "day" => Period::Day,
            "week" => Period::Week,
            "month" => Period::Month,
            _ => return Err(Unknown),
        };
        Grid::Calendar { period, previous: value.get("previous")?.i64()? }
    };
    Ok(Some(Cell {
        spec: Spec { kind, money: value.get("money")?.bool()?, charge: value.get("charge")?.i64()? },
        layout,
        grid,
        groups_max: optional("groups_max")?.unwrap_or(0) as usize,
        needs: value
            .get("needs")?
            .list()?
            .iter()
            .map(|one| Ok(one.str()?.to_owned()))
            .collect::<Known<_>>()?,
    }))
}

fn parse_event(value: &Value) -> Known<Event> {
    let mut lists = Vec::new();
    for list in value.get("lists")?.list()? {
        let name = list.get("name")?.str()?.to_owned();
        lists.push((name, parse_groups(list.get("groups")?)?));
    }
    let mut fields = Vec::new();
    for field in value.get("fields")?.list()? {
        let items = field.get("items")?.str()?;
        let list = match lists.iter().position(|(name, _)| name == items) {
            Some(place) => place + 1,
            None if items.is_empty() => 0,
            None => return Err(Unknown),
        };
        let kind = match field.get("kind")?.str()? {
            "string" | "enum" => FieldKind::Text,
            "integer" | "decimal" | "datetime" => FieldKind::Number,
            "boolean" => FieldKind::Flag,
            "money" => FieldKind::Money,
            "strings" | "objects" => FieldKind::List,
            _ => return Err(Unknown),
        };
        fields.push(Field { list, name: field.get("name")?.str()?.to_owned(), kind });
    }
    Ok(Event { fields, direct: parse_groups(value.get("direct")?)?, lists })
}

fn parse_groups(value: &Value) -> Known<Vec<Group>> {
    let group = |value: &Value| {
        Ok(Group {
            mask: u64::try_from(value.get("mask")?.int()?).map_err(|_| Unknown)?,
            charge: value.get("charge")?.i64()?,
            programs: value.get("programs")?.list()?.iter().map(parse_program).collect::<Known<_>>()?,
        })
    };
    value.list()?.iter().map(group).collect()
}

fn parse_program(value: &Value) -> Known<Program> {
    let tree = |name: &str| {
        let found = value.get(name)?;
        if found.is_nil() { Ok(None) } else { Tree::parse(found).map(Some) }
    };
    let flag = |name: &str| value.get(name)?.bool();
    Ok(Program {
        cell: value.get("cell")?.size()?,
        filter: tree("where")?,
        key: tree("key")?,
        parts: value.get("parts")?.list()?.iter().map(Tree::parse).collect::<Known<_>>()?,
        group: tree("by")?,
        folds_value: flag("folds_value")?,
        charges_text: flag("charges_text")?,
        key_is_text: flag("key_is_text")?,
        group_is_text: flag("by_is_text")?,
        text_parts: value.get("text_parts")?.list()?.iter().map(Value::bool).collect::<Known<_>>()?,
    })
}
