//! The intake of requests without a Python object for each event: `penstock.flows.intake` drives it.
//!
//! It knows plain events of the Segment spec and declared fields. Whatever else a body holds it leaves to
//! Python, event by event; a body that is no plain JSON as a whole. It refuses nothing, and says no error.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};

use crate::fields::{Fields, Keeper, longer_than};
use crate::hash::Named;
use crate::hashes;
use crate::instant;
use crate::json::{Kind, Node, Parser, Tree};
use crate::msgpack::{
    Known, Unknown, Value, put_array, put_bin, put_bool, put_int, put_map, put_str, put_uint,
};
use crate::routing::{Routing, Rules, Said, Statement};

const TYPES: [&str; 6] = ["identify", "track", "page", "screen", "group", "alias"];
const MESSAGE_ID_CHARS_MAX: usize = 100;
const IDENTIFIER_CHARS_MAX: usize = 512;
const EVENT_NAME_CHARS_MAX: usize = 200;
const INSTANT_BYTES_MAX: usize = 40;
const SKEW_MS_MIN: i64 = 30_000;
const FUTURE_MS_MAX: i64 = 300_000;
/// The year 9999 begins: no event is as late.
const YEAR_9999_MS: i64 = 253_370_764_800_000;
const SOURCE_KEY_BYTES_MAX: usize = 64;
const PURPOSES_SAID_MAX: usize = 64;
/// Members beside the events of a batch, each of which is compared with all before it.
const BESIDE_MAX: usize = 32;
/// Room for nodes that is kept from one body to the next.
const NODES_KEPT: usize = 1 << 16;

/// What the evidence of an event has it be, as Python has judged.
struct Judged {
    evidence: Vec<u8>,
    used: Use,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    Collect,
    Bare,
    Discard(&'static str),
}

/// What becomes of `track` events of a name that is not declared.
enum Undeclared {
    Keep,
    Drop,
    Reject,
}

/// How a declared name, or a type other than `track`, has its fields kept.
enum Plan {
    Properties(Fields),
    Traits(Fields),
    Python,
}

/// The intake of one set of definitions; one thread at a time.
#[pyclass(module = "penstock_native")]
pub struct Intake {
    plans: HashMap<String, Plan, Named>,
    /// Of the types other than `track`; without one nothing of them is kept.
    types: HashMap<String, Plan, Named>,
    undeclared: Undeclared,
    keep_traits: bool,
    permission: HashSet<String, Named>,
    identity_token: Vec<u8>,
    keeper: Keeper,
    rules: Rules,
    /// How every record begins: format, kind and tenant.
    head: Vec<u8>,
    judged: HashMap<Vec<u8>, Judged>,
    nodes: Vec<Node>,
    out: Vec<u8>,
    key: Vec<u8>,
    dropped: Vec<(String, usize)>,
    blocked: usize,
    broken: bool,
}

/// A source, as a request names it.
#[derive(FromPyObject)]
struct Source(String, i64, bool, bool);

/// What holds for all events of a request.
struct Request<'a> {
    body: &'a str,
    source: &'a str,
    rank: i64,
    verified: bool,
    /// Whether events may bring a token that says who they are.
    vouched: bool,
    gpc: bool,
    received_at_ms: i64,
    kind: Option<&'static str>,
    sent_at: Option<Cow<'a, str>>,
}

/// Where events stand in a request.
struct Opened {
    /// The root of each; None of those that are Python's whatever is in them.
    roots: Vec<Option<u32>>,
    sent_at: Option<u32>,
}

/// A field's place in an event, if it is there.
#[derive(Default)]
struct Places {
    kind: Option<u32>,
    event: Option<u32>,
    name: Option<u32>,
    category: Option<u32>,
    message_id: Option<u32>,
    user: Option<u32>,
    anonymous: Option<u32>,
    group: Option<u32>,
    previous: Option<u32>,
    properties: Option<u32>,
    traits: Option<u32>,
    context: Option<u32>,
    timestamp: Option<u32>,
    original: Option<u32>,
    sent_at: Option<u32>,
}

enum Outcome {
    /// A record, in `Intake::out`.
    Record,
    Discarded(&'static str),
}

type Taken<'py> = (Bound<'py, PyList>, Vec<usize>, Vec<(usize, &'static str)>, Vec<(String, usize)>, usize);

#[pymethods]
impl Intake {
    #[new]
    fn new(definitions: &[u8], identifier_key: &[u8], pseudonym_key: &[u8]) -> PyResult<Intake> {
        // What Python sees of a panic is no exception that anybody catches.
        catch_unwind(|| Intake::parse(definitions, identifier_key, pseudonym_key))
            .unwrap_or(Err(Unknown))
            .map_err(|_| PyValueError::new_err("definitions that the native intake does not read"))
    }

    /// Tell what is done with what a source's events say of consent.
    fn judge(
        &mut self,
        source: &str,
        gpc: bool,
        said: Vec<(String, bool)>,
        evidence: &[u8],
        used: &str,
    ) -> PyResult<()> {
        let used = match used {
            "collect" => Use::Collect,
            "bare" => Use::Bare,
            "consent_unknown" => Use::Discard("consent_unknown"),
            "consent_category_unknown" => Use::Discard("consent_category_unknown"),
            _ => return Err(PyValueError::new_err("no such use")),
        };
        let mut key = Vec::new();
        begin_key(&mut key, source, gpc);
        for (category, granted) in said {
            add_to_key(&mut key, &category, granted);
        }
        self.judged.insert(key, Judged { evidence: evidence.to_vec(), used });
        Ok(())
    }

    /// Take a body in: `(a record for each event, None of the others; places of those that are Python's;
    /// places and reasons of those of which nothing is kept; fields that nothing declares by event;
    /// identifiers that were left out)`. None
    /// if all of it is Python's.
    #[allow(clippy::too_many_arguments)]
    fn take<'py>(
        &mut self,
        py: Python<'py>,
        body: &[u8],
        kind: Option<&str>,
        batch: bool,
        limits: (usize, usize),
        source: Source,
        gpc: bool,
        received_at_ms: i64,
    ) -> Option<Taken<'py>> {
        if self.broken {
            return None;
        }
        let known = TYPES.into_iter().find(|known| Some(*known) == kind);
        if kind.is_some() && known.is_none() {
            return None;
        }
        let Source(name, rank, verified, vouched) = source;
        let request = Request {
            body: std::str::from_utf8(body).ok()?,
            source: &name,
            rank,
            verified,
            vouched: vouched && !verified,
            gpc,
            received_at_ms,
            kind: known,
            sent_at: None,
        };
        let taking = AssertUnwindSafe(|| self.take_all(py, request, batch, limits));
        match catch_unwind(taking) {
            Ok(taken) => taken.ok(),
            Err(_) => {
                self.broken = true;
                None
            }
        }
    }
}

impl Intake {
    fn parse(definitions: &[u8], identifier_key: &[u8], pseudonym_key: &[u8]) -> Known<Intake> {
        let given = Value::parse(definitions)?;
        let tenant = given.get("tenant")?.str()?;
        let mut head = Vec::new();
        put_array(&mut head, 21);
        put_int(&mut head, given.get("format")?.i64()?);
        put_int(&mut head, given.get("kind")?.i64()?);
        put_str(&mut head, tenant);
        let texts = |name: &str| {
            given
                .get(name)?
                .list()?
                .iter()
                .map(|one| Ok(one.str()?.to_owned()))
                .collect::<Known<HashSet<_, Named>>>()
        };
        Ok(Intake {
            plans: plans_of(given.get("events")?)?,
            types: plans_of(given.get("types")?)?,
            undeclared: match given.get("undeclared")?.str()? {
                "keep" => Undeclared::Keep,
                "drop" => Undeclared::Drop,
                _ => Undeclared::Reject,
            },
            keep_traits: given.get("keep_traits")?.bool()?,
            permission: texts("permission_events")?,
            identity_token: given.get("identity_token")?.str()?.as_bytes().to_vec(),
            keeper: Keeper::new(pseudonym_key, given.get("currencies")?)?,
            rules: Rules::parse(given.get("identity")?, identifier_key, tenant)?,
            head,
            judged: HashMap::new(),
            nodes: Vec::new(),
            out: Vec::new(),
            key: Vec::new(),
            dropped: Vec::new(),
            blocked: 0,
            broken: false,
        })
    }

    fn take_all<'py>(
        &mut self,
        py: Python<'py>,
        mut request: Request<'_>,
        batch: bool,
        (bytes_max, events_max): (usize, usize),
    ) -> Known<Taken<'py>> {
        let mut nodes = std::mem::take(&mut self.nodes);
        nodes.clear();
        let opened = open(request.body, batch, (bytes_max, events_max), &mut nodes)?;
        let tree = Tree { body: request.body, nodes };
        if let Some(place) = opened.sent_at {
            request.sent_at = Some(tree.text(place)?);
        }
        let records = PyList::empty(py);
        let (mut rest, mut discarded) = (Vec::new(), Vec::new());
        self.dropped.clear();
        self.blocked = 0;
        let mut derived = None;
        for (index, root) in opened.roots.iter().enumerate() {
            self.out.clear();
            let outcome = root
                .ok_or(Unknown)
                .and_then(|root| self.take_one(&tree, root, &request, index, &mut derived));
            let add = match outcome {
                Ok(Outcome::Record) => records.append(PyBytes::new(py, &self.out)),
                Ok(Outcome::Discarded(reason)) => {
                    discarded.push((index, reason));
                    records.append(py.None())
                }
                Err(Unknown) => {
                    rest.push(index);
                    records.append(py.None())
                }
            };
            add.map_err(|_| Unknown)?;
        }
        if tree.nodes.capacity() <= NODES_KEPT {
            self.nodes = tree.nodes;
        }
        if rest.len() == opened.roots.len() {
            return Err(Unknown);
        }
        Ok((records, rest, discarded, std::mem::take(&mut self.dropped), self.blocked))
    }

    fn take_one(
        &mut self,
        tree: &Tree<'_>,
        root: u32,
        request: &Request<'_>,
        index: usize,
        derived: &mut Option<String>,
    ) -> Known<Outcome> {
        let places = Places::of(tree, root)?;
        let shown = text_at(tree, places.kind)?.unwrap_or_default();
        let kind = match request.kind {
            Some(kind) => kind,
            None => TYPES.into_iter().find(|known| *known == shown).ok_or(Unknown)?,
        };
        let event_name = text_at(tree, places.event)?;
        let name: &str = if kind == "track" { event_name.as_deref().unwrap_or("") } else { kind };
        if name.is_empty() || longer_than(name, EVENT_NAME_CHARS_MAX) || self.permission.contains(name) {
            return Err(Unknown);
        }
        let mut message_id = text_at(tree, places.message_id)?.unwrap_or_default();
        if message_id.is_empty() {
            let body = derived.get_or_insert_with(|| derived_id(request));
            message_id = Cow::Owned(format!("{body}-{index}"));
        }
        let traits = traits_of(tree, &places, kind);
        let said = said_of(tree, &places, kind, traits)?;
        if longer_than(&message_id, MESSAGE_ID_CHARS_MAX) {
            return Err(Unknown);
        }
        let occurred = occurred_at_ms(tree, &places, request)?;
        if request.vouched && tree.get(places.context, &self.identity_token).is_some() {
            return Err(Unknown);
        }
        consent_key(tree, places.context, request, &mut self.key)?;
        let judged = self.judged.get(&self.key).ok_or(Unknown)?;
        if let Use::Discard(reason) = judged.used {
            return Ok(Outcome::Discarded(reason));
        }
        has_no_external_ids(tree, places.context)?;
        let routing = self.rules.route(&said, kind, request.verified)?;
        let plan = if kind == "track" { self.plans.get(name) } else { self.types.get(kind) };
        if kind == "track" && plan.is_none() {
            match self.undeclared {
                Undeclared::Reject => return Err(Unknown),
                Undeclared::Drop => {
                    self.blocked += routing.blocked;
                    return Ok(Outcome::Discarded("undeclared_event"));
                }
                Undeclared::Keep => {}
            }
        }
        let statement = Statement::new(&routing.leaf, &message_id, occurred, kind, request.verified);
        let out = &mut self.out;
        out.extend_from_slice(&self.head);
        put_bin(out, &routing.leaf);
        put_str(out, routing.primary.name());
        put_uint(out, statement.event_id);
        put_str(out, &message_id);
        put_str(out, kind);
        put_str(out, name);
        put_int(out, occurred);
        put_int(out, request.received_at_ms);
        put_str(out, request.source);
        put_int(out, request.rank);
        put_bool(out, request.verified);
        out.extend_from_slice(&judged.evidence);
        let bare = judged.used == Use::Bare;
        let identity = Identity { rules: &self.rules, routing: &routing, statement: &statement };
        let filling = Filling { tree, places: &places, traits, plan, bare, keep_traits: self.keep_traits };
        let undeclared = put_rest(&self.keeper, &identity, &filling, out)?;
        self.blocked += routing.blocked;
        if undeclared > 0 {
            let label = if self.plans.contains_key(name) { name } else { kind };
            match self.dropped.iter_mut().find(|(held, _)| held == label) {
                Some((_, count)) => *count += undeclared,
                None => self.dropped.push((label.to_owned(), undeclared)),
            }
        }
        Ok(Outcome::Record)
    }
}

/// What fills a record beside its head.
struct Filling<'t, 'a> {
    tree: &'t Tree<'a>,
    places: &'t Places,
    traits: Option<u32>,
    plan: Option<&'t Plan>,
    bare: bool,
    keep_traits: bool,
}

/// Who an event is of.
struct Identity<'t, 'a> {
    rules: &'t Rules,
    routing: &'t Routing<'a>,
    statement: &'t Statement<'t>,
}

/// Write a record from its identifiers on; return how many fields were dropped since nothing declares them.
fn put_rest(
    keeper: &Keeper,
    identity: &Identity<'_, '_>,
    filling: &Filling<'_, '_>,
    out: &mut Vec<u8>,
) -> Known<usize> {
    let Filling { tree, places, traits, plan, bare, keep_traits } = *filling;
    if bare {
        put_array(out, 0);
        put_array(out, 0);
    } else {
        identity.rules.put(keeper, identity.routing, identity.statement, out)?;
    }
    let mut undeclared = 0;
    let start = out.len();
    match plan {
        Some(Plan::Properties(fields)) => {
            // Server SDKs send a page's name and category beside its properties.
            let mut beside = [("name", places.name), ("category", places.category)];
            if identity.statement.rule == "track" {
                beside = [("name", None), ("category", None)];
            }
            let mut before = Vec::new();
            for (name, place) in beside {
                if let Some(place) =
                    place.filter(|place| tree.written(*place).is_ok_and(|text| !text.is_empty()))
                {
                    before.push((name, place));
                }
            }
            fields.apply(keeper, tree, places.properties, &before, out, &mut undeclared)?;
            put_map(out, 0);
        }
        Some(Plan::Traits(fields)) => {
            put_map(out, 0);
            fields.apply_traits(keeper, tree, traits, keep_traits, out, &mut undeclared)?;
        }
        Some(Plan::Python) => return Err(Unknown),
        None => {
            if identity.statement.rule == "track" {
                undeclared = places.properties.map_or(0, |place| tree.inside(place).count());
            }
            put_map(out, 0);
            put_map(out, 0);
        }
    }
    if bare {
        out.truncate(start);
        put_map(out, 0);
        put_map(out, 0);
    }
    put_str(out, "");
    put_bool(out, bare);
    Ok(undeclared)
}

impl Places {
    fn of(tree: &Tree<'_>, root: u32) -> Known<Places> {
        let mut found = Places::default();
        if tree.kind(root) != Kind::Object {
            return Err(Unknown);
        }
        for place in tree.inside(root) {
            let (field, id, object) = match tree.key(place) {
                b"type" => (&mut found.kind, false, false),
                b"event" => (&mut found.event, false, false),
                b"name" => (&mut found.name, false, false),
                b"category" => (&mut found.category, false, false),
                b"messageId" => (&mut found.message_id, true, false),
                b"userId" => (&mut found.user, true, false),
                b"anonymousId" => (&mut found.anonymous, true, false),
                b"groupId" => (&mut found.group, true, false),
                b"previousId" => (&mut found.previous, true, false),
                b"properties" => (&mut found.properties, false, true),
                b"traits" => (&mut found.traits, false, true),
                b"context" => (&mut found.context, false, true),
                b"timestamp" => (&mut found.timestamp, false, false),
                b"originalTimestamp" => (&mut found.original, false, false),
                b"sentAt" => (&mut found.sent_at, false, false),
                _ => continue,
            };
            *field = match tree.kind(place) {
                Kind::Null => None,
                Kind::Text if !object => Some(place),
                Kind::Int if id => Some(place),
                Kind::Object if object => Some(place),
                _ => return Err(Unknown),
            };
        }
        Ok(found)
    }
}

fn text_at<'a>(tree: &Tree<'a>, place: Option<u32>) -> Known<Option<Cow<'a, str>>> {
    place.map(|place| tree.text(place)).transpose()
}

fn open(body: &str, batch: bool, limits: (usize, usize), nodes: &mut Vec<Node>) -> Known<Opened> {
    let mut parser = Parser::new(body)?;
    if !batch {
        parser.value(nodes)?;
        parser.done()?;
        if parser.odd || body.len() > limits.0 {
            return Err(Unknown);
        }
        return Ok(Opened { roots: vec![Some(0)], sent_at: None });
    }
    let (mut roots, mut sent_at) = (None, None);
    let mut beside: Vec<&[u8]> = Vec::new();
    parser.require(b'{')?;
    loop {
        parser.odd = false;
        let (start, end) = parser.key()?;
        let key = body.as_bytes().get(start as usize..end as usize).ok_or(Unknown)?;
        if parser.odd || beside.len() == BESIDE_MAX || beside.contains(&key) {
            return Err(Unknown);
        }
        if key == b"batch" {
            roots = Some(open_events(&mut parser, limits, nodes)?);
        } else {
            let place = nodes.len() as u32;
            parser.value(nodes)?;
            let node = nodes[place as usize];
            match (key, node.kind) {
                (b"sentAt", Kind::Text) => sent_at = Some(place),
                (b"context", Kind::Object) if node.after == place + 1 => {}
                (b"sentAt" | b"context", Kind::Null) => {}
                (b"sentAt" | b"context", _) => return Err(Unknown),
                _ => {}
            }
            if parser.odd {
                return Err(Unknown);
            }
        }
        beside.push(key);
        if !parser.takes(b',') {
            break;
        }
    }
    parser.require(b'}')?;
    parser.done()?;
    Ok(Opened { roots: roots.ok_or(Unknown)?, sent_at })
}

fn open_events(
    parser: &mut Parser<'_>,
    (bytes_max, events_max): (usize, usize),
    nodes: &mut Vec<Node>,
) -> Known<Vec<Option<u32>>> {
    let mut roots = Vec::new();
    parser.require(b'[')?;
    if parser.takes(b']') {
        return Ok(roots);
    }
    loop {
        if roots.len() == events_max {
            return Err(Unknown);
        }
        parser.odd = false;
        let (start, place) = (parser.at(), nodes.len() as u32);
        parser.value(nodes)?;
        let known = !parser.odd && parser.at() - start <= bytes_max;
        roots.push(known.then_some(place));
        if !parser.takes(b',') {
            break;
        }
    }
    parser.odd = false;
    parser.require(b']')?;
    Ok(roots)
}

fn plans_of(value: &Value) -> Known<HashMap<String, Plan, Named>> {
    let Value::Map(pairs) = value else { return Err(Unknown) };
    let plan = |given: &Value| {
        let [kind, fields] = given.list()? else { return Err(Unknown) };
        // A plan of which one field is not known is Python's.
        Ok(match kind.str()? {
            "properties" => Fields::parse(fields).map_or(Plan::Python, Plan::Properties),
            "traits" => Fields::parse(fields).map_or(Plan::Python, Plan::Traits),
            _ => Plan::Python,
        })
    };
    pairs.iter().map(|(name, given)| Ok((name.clone(), plan(given)?))).collect()
}

fn derived_id(request: &Request<'_>) -> String {
    let key = request.source.as_bytes();
    let key = &key[..key.len().min(SOURCE_KEY_BYTES_MAX)];
    let digest = u128::from_be_bytes(hashes::keyed_16(key, request.body.as_bytes()));
    format!("body-{digest:032x}")
}

/// The traits of an event, or those in its context where an SDK sends them there.
fn traits_of(tree: &Tree<'_>, places: &Places, kind: &str) -> Option<u32> {
    let filled = |place: &u32| tree.kind(*place) == Kind::Object && !tree.is_empty(*place);
    if kind == "group" || places.traits.as_ref().is_some_and(filled) {
        return places.traits;
    }
    tree.get(places.context, b"traits").filter(filled).or(places.traits)
}

fn said_of<'a>(tree: &Tree<'a>, places: &Places, kind: &str, traits: Option<u32>) -> Known<Said<'a>> {
    let said = Said {
        user: text_at(tree, places.user)?,
        anonymous: text_at(tree, places.anonymous)?,
        email: email_of(tree, places, kind, traits)?,
        group: text_at(tree, places.group)?,
        previous: text_at(tree, places.previous)?,
    };
    let ids = [&said.user, &said.anonymous, &said.group, &said.previous];
    if ids.into_iter().flatten().any(|id| longer_than(id, IDENTIFIER_CHARS_MAX)) {
        return Err(Unknown);
    }
    Ok(said)
}

fn email_of<'a>(
    tree: &Tree<'a>,
    places: &Places,
    kind: &str,
    traits: Option<u32>,
) -> Known<Option<Cow<'a, str>>> {
    let said = |object: Option<u32>| match tree.get(object, b"email") {
        None => Ok(None),
        Some(place) => match tree.kind(place) {
            Kind::Null => Ok(None),
            Kind::Text => tree.text(place).map(|text| Some(text).filter(|text| !text.is_empty())),
            _ => Err(Unknown),
        },
    };
    let own = if kind == "group" { None } else { said(traits)? };
    if own.is_some() { Ok(own) } else { said(tree.get(places.context, b"traits")) }
}

fn instant_of(text: &str) -> Known<i64> {
    if text.len() > INSTANT_BYTES_MAX {
        return Err(Unknown);
    }
    instant::parse(text).ok().filter(|at_ms| (0..YEAR_9999_MS).contains(at_ms)).ok_or(Unknown)
}

fn occurred_at_ms(tree: &Tree<'_>, places: &Places, request: &Request<'_>) -> Known<i64> {
    let filled = |place: Option<u32>| Ok(text_at(tree, place)?.filter(|text| !text.is_empty()));
    let claimed = match filled(places.timestamp)? {
        None => filled(places.original)?,
        some => some,
    };
    let Some(claimed) = claimed else { return Ok(request.received_at_ms) };
    let claimed_ms = instant_of(&claimed)?;
    let own = filled(places.sent_at)?;
    let sent = own.as_deref().or(request.sent_at.as_deref()).filter(|text| !text.is_empty());
    let mut at_ms = claimed_ms;
    if let Some(sent) = sent {
        let sent_ms = instant_of(sent)?;
        if (request.received_at_ms - sent_ms).abs() > SKEW_MS_MIN {
            at_ms = request.received_at_ms - (sent_ms - claimed_ms);
        }
    }
    Ok(at_ms.min(request.received_at_ms + FUTURE_MS_MAX).max(0))
}

/// Refuse ids beside the plain ones.
fn has_no_external_ids(tree: &Tree<'_>, context: Option<u32>) -> Known<()> {
    for key in [b"externalIds".as_slice(), b"externalId"] {
        if let Some(place) = tree.get(context, key) {
            let kind = tree.kind(place);
            if kind != Kind::Null && !(kind == Kind::List && tree.is_empty(place)) {
                return Err(Unknown);
            }
        }
    }
    Ok(())
}

fn begin_key(key: &mut Vec<u8>, source: &str, gpc: bool) {
    key.clear();
    key.push(u8::from(gpc));
    put_str(key, source);
}

fn add_to_key(key: &mut Vec<u8>, category: &str, granted: bool) {
    put_str(key, category);
    key.push(u8::from(granted));
}

/// What an event says of consent, as it is remembered by.
fn consent_key(tree: &Tree<'_>, context: Option<u32>, request: &Request<'_>, key: &mut Vec<u8>) -> Known<()> {
    begin_key(key, request.source, request.gpc);
    let object = |place: Option<u32>| match place.map(|place| (place, tree.kind(place))) {
        None | Some((_, Kind::Null)) => Ok(None),
        Some((place, Kind::Object)) => Ok(Some(place)),
        _ => Err(Unknown),
    };
    if object(tree.get(context, b"consentManagement"))?.is_some() {
        return Err(Unknown);
    }
    let consent = object(tree.get(context, b"consent"))?;
    let Some(said) = object(tree.get(consent, b"categoryPreferences"))? else { return Ok(()) };
    for (number, place) in tree.inside(said).enumerate() {
        let category = std::str::from_utf8(tree.key(place)).map_err(|_| Unknown)?;
        match tree.kind(place) {
            _ if number == PURPOSES_SAID_MAX => return Err(Unknown),
            Kind::True => add_to_key(key, category, true),
            Kind::False => add_to_key(key, category, false),
            _ => return Err(Unknown),
        }
    }
    Ok(())
}
