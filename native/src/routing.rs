//! Where an event goes and which edges it states, as `core/identity/routing.py` has it: of plain identifiers.

use std::borrow::Cow;
use std::collections::HashSet;

use crate::fields::{Guard, Keeper};
use crate::hash::Named;
use crate::hashes;
use crate::hashes::Keyed;
use crate::held::LeafId;
use crate::msgpack::{Known, Unknown, Value, put_array, put_bin, put_bool, put_int, put_str, put_uint};

const VALUE_BYTES_MAX: usize = 512;
const EMAIL_BYTES_MAX: usize = 254;
/// Longer values are compared with those that join nobody by Python.
const FOLDED_BYTES_MAX: usize = 256;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Type {
    User,
    Anonymous,
    Email,
    Group,
    ClaimedUser,
}

impl Type {
    const ALL: [Type; 5] = [Type::User, Type::Anonymous, Type::Email, Type::Group, Type::ClaimedUser];

    pub fn name(self) -> &'static str {
        match self {
            Type::User => "user_id",
            Type::Anonymous => "anonymous_id",
            Type::Email => "email",
            Type::Group => "group_id",
            Type::ClaimedUser => "claimed_user_id",
        }
    }
}

/// What makes leaves of identifiers, and what joins nobody.
pub struct Rules {
    key: Keyed,
    /// What stands before the value in what is hashed, by type.
    before: [Vec<u8>; 5],
    priorities: [i64; 5],
    blocked: HashSet<Vec<u8>, Named>,
    guards: [Option<Guard>; 5],
}

/// What an event says of who it is.
#[derive(Default)]
pub struct Said<'a> {
    pub user: Option<Cow<'a, str>>,
    pub anonymous: Option<Cow<'a, str>>,
    pub email: Option<Cow<'a, str>>,
    pub group: Option<Cow<'a, str>>,
    pub previous: Option<Cow<'a, str>>,
}

struct Identifier<'a> {
    kind: Type,
    value: &'a str,
    leaf: LeafId,
}

/// The identifiers of an event in their one spelling.
pub struct Routing<'a> {
    found: [Option<Cow<'a, str>>; 4],
    previous: Option<Cow<'a, str>>,
    pub primary: Type,
    pub leaf: LeafId,
    /// Identifiers that were left out.
    pub blocked: usize,
}

impl Rules {
    pub fn parse(value: &Value, identifier_key: &[u8], tenant: &str) -> Known<Rules> {
        let priorities = value.get("priorities")?;
        let guards = value.get("guards")?;
        let mut rules = Rules {
            key: Keyed::new(identifier_key),
            before: Type::ALL.map(|kind| [tenant.as_bytes(), b"\0", kind.name().as_bytes(), b"\0"].concat()),
            priorities: [0; 5],
            blocked: HashSet::default(),
            guards: [None; 5],
        };
        for kind in Type::ALL {
            rules.priorities[kind as usize] = priorities.get(kind.name())?.i64()?;
            rules.guards[kind as usize] = match guards.get(kind.name())?.str()? {
                "plain" => None,
                "drop" => Some(Guard::Drop),
                "truncate" => Some(Guard::Truncate),
                "pseudonym" => Some(Guard::Pseudonym),
                _ => return Err(Unknown),
            };
        }
        for one in value.get("blocked")?.list()? {
            rules.blocked.insert(one.str()?.as_bytes().to_vec());
        }
        Ok(rules)
    }

    fn leaf(&self, kind: Type, value: &str) -> LeafId {
        let before = &self.before[kind as usize];
        let mut message = Vec::with_capacity(before.len() + value.len());
        message.extend_from_slice(before);
        message.extend_from_slice(value.as_bytes());
        self.key.short(&message)
    }

    /// An identifier's one spelling; None of none, and of one that is left out.
    fn judged<'a>(&self, kind: Type, value: Option<&Cow<'a, str>>) -> Known<Option<Cow<'a, str>>> {
        let Some(value) = value.filter(|value| !value.is_empty()) else { return Ok(None) };
        if !value.bytes().all(|byte| (0x20..0x7f).contains(&byte)) {
            return Err(Unknown);
        }
        let text: Cow<'a, str> = match value {
            Cow::Borrowed(text) => Cow::Borrowed(text.trim_matches(' ')),
            Cow::Owned(text) => Cow::Owned(text.trim_matches(' ').to_owned()),
        };
        let text = if kind == Type::Email { email(&text).map(Cow::Owned) } else { Some(text) };
        let Some(text) = text.filter(|text| !text.is_empty() && text.len() <= VALUE_BYTES_MAX) else {
            return Ok(None);
        };
        let left_out = kind != Type::Group && self.joins_nobody(&text)?;
        Ok(Some(text).filter(|_| !left_out))
    }

    fn joins_nobody(&self, text: &str) -> Known<bool> {
        let quote = |one: char| matches!(one, '"' | '\'' | '`');
        let bare = text.trim_matches(' ').trim_matches(quote).trim_matches(' ');
        if bare.len() > FOLDED_BYTES_MAX {
            return Err(Unknown);
        }
        let mut folded = [0; FOLDED_BYTES_MAX];
        let folded = &mut folded[..bare.len()];
        folded.copy_from_slice(bare.as_bytes());
        folded.make_ascii_lowercase();
        Ok(folded.iter().all(|byte| matches!(byte, b'0' | b'-')) || self.blocked.contains(&*folded))
    }

    /// Find where an event of a type goes.
    pub fn route<'a>(&self, said: &Said<'a>, type_name: &str, verified: bool) -> Known<Routing<'a>> {
        let mut blocked = 0;
        let mut judged = |kind: Type, value: &Option<Cow<'a, str>>| {
            let text = self.judged(kind, value.as_ref())?;
            blocked += usize::from(text.is_none() && value.as_ref().is_some_and(|value| !value.is_empty()));
            Ok(text)
        };
        let found = [
            judged(Type::User, &said.user)?,
            judged(Type::Anonymous, &said.anonymous)?,
            judged(Type::Email, &said.email)?,
            judged(Type::Group, &said.group)?,
        ];
        let has = |kind: Type| found[kind as usize].is_some();
        if type_name == "group" && !has(Type::Group) {
            return Err(Unknown);
        }
        let mut previous = None;
        if type_name == "alias" {
            let text = self.judged(Type::User, said.previous.as_ref())?.ok_or(Unknown)?;
            if found[Type::Anonymous as usize].as_ref() != Some(&text) {
                // A stranger does not say who somebody was.
                blocked += usize::from(!verified);
                previous = Some(text).filter(|_| verified);
            }
        }
        let primary = if !verified {
            match (has(Type::Anonymous), has(Type::User)) {
                (true, _) => Type::Anonymous,
                (false, true) => Type::ClaimedUser,
                (false, false) => return Err(Unknown),
            }
        } else if type_name == "group" {
            Type::Group
        } else {
            let order = [Type::User, Type::Anonymous, Type::Email, Type::Group];
            order.into_iter().find(|kind| has(*kind)).ok_or(Unknown)?
        };
        let spoken = if primary == Type::ClaimedUser { Type::User } else { primary };
        let value = found[spoken as usize].as_deref().ok_or(Unknown)?;
        let leaf = self.leaf(primary, value);
        Ok(Routing { found, previous, primary, leaf, blocked })
    }

    /// Write an event's identifiers and its edges.
    pub fn put(
        &self,
        keeper: &Keeper,
        routing: &Routing<'_>,
        statement: &Statement<'_>,
        out: &mut Vec<u8>,
    ) -> Known<()> {
        let spoken = if routing.primary == Type::ClaimedUser { Type::User } else { routing.primary };
        let value = routing.found[spoken as usize].as_deref().ok_or(Unknown)?;
        let primary = Identifier { kind: routing.primary, value, leaf: routing.leaf };
        let mut others = self.others(routing);
        let mut edges: Vec<(Type, LeafId, &str)> = Vec::new();
        if routing.primary != Type::Group {
            let people = others.iter().filter(|other| other.kind != Type::Group);
            edges.extend(people.map(|other| (other.kind, other.leaf, statement.rule)));
            for kind in [Type::User, Type::Anonymous] {
                let Some(value) = routing.previous.as_deref() else { break };
                let leaf = self.leaf(kind, value);
                if leaf != routing.leaf && edges.iter().all(|(_, held, _)| *held != leaf) {
                    edges.push((kind, leaf, "alias"));
                    others.push(Identifier { kind, value, leaf });
                }
            }
        }
        put_array(out, 1 + others.len());
        for one in std::iter::once(&primary).chain(&others) {
            put_array(out, 3);
            put_str(out, one.kind.name());
            put_bin(out, &one.leaf);
            match self.guards[one.kind as usize] {
                None => put_str(out, one.value),
                Some(guard) => keeper.put_guarded(guard, one.value, out)?,
            }
        }
        put_array(out, edges.len());
        for (kind, leaf, rule) in edges {
            put_array(out, 11);
            put_str(out, routing.primary.name());
            put_bin(out, &routing.leaf);
            put_str(out, kind.name());
            put_bin(out, &leaf);
            put_int(out, statement.at_ms.max(1));
            put_uint(out, statement.event_id);
            put_str(out, rule);
            put_bool(out, statement.verified);
            put_bool(out, true);
            put_int(out, 0);
            put_int(out, 0);
        }
        Ok(())
    }

    fn others<'r>(&self, routing: &'r Routing<'_>) -> Vec<Identifier<'r>> {
        let mut others: Vec<Identifier<'r>> = Vec::new();
        for kind in [Type::User, Type::Anonymous, Type::Email, Type::Group] {
            if kind == routing.primary {
                continue;
            }
            if let Some(value) = routing.found[kind as usize].as_deref() {
                let leaf = self.leaf(kind, value);
                if leaf != routing.leaf {
                    others.push(Identifier { kind, value, leaf });
                }
            }
        }
        others.sort_by_key(|one| (self.priorities[one.kind as usize], one.kind.name()));
        others
    }
}

/// What all edges of an event say alike.
pub struct Statement<'a> {
    pub at_ms: i64,
    pub event_id: u64,
    pub rule: &'a str,
    pub verified: bool,
}

impl<'a> Statement<'a> {
    pub fn new(leaf: &LeafId, message_id: &str, at_ms: i64, rule: &'a str, verified: bool) -> Self {
        Statement { at_ms, event_id: hashes::event_id(leaf, message_id.as_bytes()), rule, verified }
    }
}

/// An address in its one spelling; None if it is none.
fn email(text: &str) -> Option<String> {
    let text = text.to_ascii_lowercase();
    let (local, domain) = text.rsplit_once('@')?;
    let domain = domain.trim_end_matches('.');
    let refused = |byte: u8| b" \t,;:<>()[]\"\\".contains(&byte);
    if local.is_empty() || domain.is_empty() || local.contains('@') || text.bytes().any(refused) {
        return None;
    }
    Some(format!("{local}@{domain}")).filter(|address| address.len() <= EMAIL_BYTES_MAX)
}
