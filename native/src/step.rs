//! The step: one record of the log, folded into its leaf, as `core/step.py` does.

use std::collections::HashMap;
use std::sync::Arc;

use crate::consent::{Entry, Evidence, Words, merge_into};
use crate::edge::{Edge, Texts};
use crate::leaf::{ID_TILE_MS, ID_TILES, Leaf, NEVER, Trait, Version};
use crate::msgpack::{Known, Unknown, Value};
use crate::plan::{Event, Folding, Plan};
use crate::raw::Raw;
use crate::record::{Found, LOST, PRIMARY, part, text_at};

pub const SMALL_BYTES: i64 = 4_096;

const ID_BYTES: i64 = 9;
const EDGE_BYTES: i64 = 96;
const CONSENT_BYTES: i64 = 40;
const PERSONALISATION: &str = "personalisation";
pub const PREFERENCE_UPDATED: &str = "Segment Consent Preference Updated";
const ENTITY_TYPES: [&str; 2] = ["item_id", "group_id"];
const GROUP: &str = "group_id";
const BASIS: &str = "basis";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Skipped,
    Applied,
    Deduplicated,
    Dropped,
    Dead,
    Linked,
}

/// What a record's evidence permits and says; the same for all records that carry it.
pub struct Verdict {
    pub mask: u64,
    pub permitted: Vec<String>,
    /// The explicit words; None if the ledger must be asked.
    pub words: Option<Arc<Words>>,
    pub evidence: Evidence,
}

pub struct Rules {
    pub trait_purposes: HashMap<String, String>,
    pub leaf_bytes_max: i64,
    pub permission_events: Vec<String>,
}

impl Rules {
    pub fn parse(raw: &[u8]) -> Known<Rules> {
        let given = Value::parse(raw)?;
        let Value::Map(purposes) = given.get("trait_purposes")? else { return Err(Unknown) };
        let mut trait_purposes = HashMap::new();
        for (name, purpose) in purposes {
            trait_purposes.insert(name.clone(), purpose.str()?.to_owned());
        }
        let events = given.get("permission_events")?.list()?;
        Ok(Rules {
            trait_purposes,
            leaf_bytes_max: given.get("leaf_bytes_max")?.i64()?,
            permission_events: events.iter().map(|one| Ok(one.str()?.to_owned())).collect::<Known<_>>()?,
        })
    }

    fn purpose_of(&self, name: &str) -> &str {
        self.trait_purposes.get(name).map_or(PERSONALISATION, String::as_str)
    }

    pub fn is_permission(&self, name: &str) -> bool {
        self.permission_events.iter().any(|held| held == name)
    }
}

/// The step of one set of definitions, for one thread.
pub struct Step {
    pub plan: Plan,
    pub rules: Rules,
    pub texts: Texts,
    tile: i64,
}

/// A record, and where and when it was logged.
pub struct Logged<'a> {
    pub bytes: &'a [u8],
    pub found: &'a Found,
    pub version: Version,
    pub logged_at_ms: i64,
}

impl Step {
    pub fn new(plan: Plan, rules: Rules) -> Step {
        Step { plan, rules, texts: Texts::default(), tile: 0 }
    }

    /// How an event is folded; None if no feature folds it.
    pub fn event(&self, name: &str) -> Option<&Folding> {
        self.plan.events.get(name)
    }

    /// Fold one record; the places of edges of which other leaves are to hear are put into `links`.
    pub fn fold(
        &mut self,
        leaf: &mut Leaf,
        logged: &Logged<'_>,
        verdict: &Verdict,
        links: &mut Vec<usize>,
    ) -> Outcome {
        let Logged { bytes, found, version, logged_at_ms } = *logged;
        if version.0 <= leaf.version.0 && (version.1 <= leaf.version.1 || version.0 < leaf.version.0) {
            return Outcome::Skipped;
        }
        leaf.version = version;
        if !(self.tile * ID_TILE_MS..(self.tile + 1) * ID_TILE_MS).contains(&logged_at_ms) {
            self.tile = logged_at_ms.div_euclid(ID_TILE_MS);
        }
        let clock_ms = leaf.clock_ms;
        if logged_at_ms > clock_ms {
            leaf.clock_ms = logged_at_ms;
            if clock_ms < self.tile * ID_TILE_MS && leaf.size > SMALL_BYTES {
                leaf.expire(&self.plan);
            }
        }
        if found.kind != PRIMARY {
            if found.kind == LOST {
                return Outcome::Skipped;
            }
            self.fold_link(leaf, bytes, found);
            return Outcome::Linked;
        }
        if leaf.value.is_none() {
            self.name(leaf, bytes, found);
        }
        let event = found.event_id;
        let job = text_at(bytes, &found.job);
        // What the leaf's clock has forgotten is not known, where stamps fall.
        let clock_tile = self.tile.max(leaf.clock_ms.div_euclid(ID_TILE_MS));
        let seen = leaf.ids.get(event).is_some_and(|tile| tile > clock_tile - ID_TILES);
        if seen || (!job.is_empty() && remembers(leaf, job, event)) {
            leaf.deduplicated += 1;
            if !job.is_empty() && !leaf.quarantined {
                self.remember(leaf, job, event);
            }
            return Outcome::Deduplicated;
        }
        if leaf.quarantined {
            leaf.dead += 1;
            return Outcome::Dead;
        }
        leaf.ids.put(event, self.tile as i32);
        leaf.size += ID_BYTES;
        if !job.is_empty() {
            self.remember(leaf, job, event);
        }
        let name = text_at(bytes, &found.name);
        match &verdict.words {
            Some(words) if name != PREFERENCE_UPDATED => {
                if !words.is_empty() {
                    fold_words(leaf, found, words);
                }
            }
            _ => self.fold_consent(leaf, found, name, &verdict.evidence),
        }
        let outcome = if found.bare || verdict.permitted.is_empty() {
            if self.rules.is_permission(name) {
                self.fold_edges(leaf, bytes, found, links);
            }
            leaf.dropped += 1;
            Outcome::Dropped
        } else {
            self.fold_person(leaf, bytes, found, &verdict.permitted, links);
            let id_type = text_at(bytes, &found.id_type);
            match self.plan.events.get(name) {
                Some(Folding::Here(event)) if !ENTITY_TYPES.contains(&id_type) => {
                    leaf.size += self.fold_features(leaf, bytes, found, event, verdict.mask);
                    leaf.full = self.plan.weights.take_full();
                }
                _ => {}
            }
            leaf.applied += 1;
            Outcome::Applied
        };
        self.weigh(leaf);
        outcome
    }

    fn fold_features(&self, leaf: &mut Leaf, bytes: &[u8], found: &Found, event: &Event, mask: u64) -> i64 {
        let none = [0x80];
        let properties = if found.properties.is_empty() { &none } else { &bytes[found.properties.clone()] };
        let (at, id) = (found.occurred_at_ms, found.event_id);
        self.plan.fold(event, &mut leaf.states, properties, at, id, mask)
    }

    fn name(&mut self, leaf: &mut Leaf, bytes: &[u8], found: &Found) {
        if leaf.id_type.is_empty() {
            leaf.id_type = self.texts.of(text_at(bytes, &found.id_type));
        }
        let mut reader = part(bytes, &found.identifiers);
        let mut named = || -> Known<()> {
            for _ in 0..reader.array()? {
                let count = reader.array()?;
                reader.str()?;
                let this = reader.bin()? == found.leaf.as_slice();
                let value = if count < 3 || reader.nil() { None } else { Some(reader.str()?) };
                if this {
                    leaf.value = value.map(Into::into);
                }
            }
            Ok(())
        };
        named().unwrap_or(());
    }

    fn remember(&self, leaf: &mut Leaf, job: &str, event: u64) {
        let jobs = &mut leaf.rare().jobs;
        let place = match jobs.iter().position(|(held, _)| held == job) {
            Some(place) => place,
            None => {
                jobs.push((job.to_owned(), Default::default()));
                jobs.len() - 1
            }
        };
        if jobs[place].1.insert(event) {
            leaf.size += ID_BYTES;
            self.weigh(leaf);
        }
    }

    fn fold_person(
        &mut self,
        leaf: &mut Leaf,
        bytes: &[u8],
        found: &Found,
        permitted: &[String],
        links: &mut Vec<usize>,
    ) {
        self.fold_edges(leaf, bytes, found, links);
        let type_ = text_at(bytes, &found.type_);
        if type_ == "identify" || (type_ == "group" && text_at(bytes, &found.id_type) == GROUP) {
            self.fold_traits(leaf, bytes, found, permitted).unwrap_or(());
        }
    }

    fn edges(&mut self, bytes: &[u8], found: &Found) -> Vec<Edge> {
        let mut reader = part(bytes, &found.edges);
        let count = reader.array().unwrap_or(0);
        (0..count).map_while(|_| Edge::read(&mut reader, &mut self.texts).ok()).collect()
    }

    fn fold_edges(&mut self, leaf: &mut Leaf, bytes: &[u8], found: &Found, links: &mut Vec<usize>) {
        // Nearly every event repeats the one join that is known.
        match only_edge(bytes, found) {
            One::None => return,
            One::Edge(edge) if leaf.edges.seen_again(edge) => return,
            _ => {}
        }
        let stated = self.edges(bytes, found);
        for (place, edge) in stated.iter().enumerate() {
            if leaf.edges.would_change(edge) {
                links.push(place);
            }
        }
        for edge in &stated {
            if leaf.edges.fold(edge) {
                leaf.size += EDGE_BYTES;
            }
        }
    }

    fn fold_link(&mut self, leaf: &mut Leaf, bytes: &[u8], found: &Found) {
        leaf.links += 1;
        if leaf.value.is_none() {
            self.name(leaf, bytes, found);
        }
        for edge in self.edges(bytes, found) {
            if !leaf.quarantined && leaf.edges.fold(&edge) {
                leaf.size += EDGE_BYTES;
            }
        }
        self.weigh(leaf);
    }

    fn fold_traits(&self, leaf: &mut Leaf, bytes: &[u8], found: &Found, permitted: &[String]) -> Known<()> {
        let rank = if found.verified { found.source_rank } else { found.source_rank.min(0) - 1 };
        if found.traits.is_empty() {
            return Ok(());
        }
        let mut reader = part(bytes, &found.traits);
        for _ in 0..reader.map()? {
            let name = reader.str()?;
            let value = Raw::read(&mut reader)?;
            let purpose = self.rules.purpose_of(name);
            if !permitted.iter().any(|held| held == purpose) {
                continue;
            }
            let one = Trait { rank, at: found.occurred_at_ms, event: found.event_id, value };
            let rare = leaf.rare();
            let before = rare.trait_size(name);
            let purged_ms = rare.purged.iter().find(|(held, _)| held == purpose).map_or(NEVER, |(_, at)| *at);
            fold_trait(&mut rare.traits, name, one, purged_ms);
            let after = rare.trait_size(name);
            leaf.size += after - before;
        }
        Ok(())
    }

    fn fold_consent(&self, leaf: &mut Leaf, found: &Found, name: &str, evidence: &Evidence) {
        if evidence.unknown {
            leaf.own_consent();
            return;
        }
        let at_ms = found.occurred_at_ms.min(found.received_at_ms).max(0);
        let changed = name == PREFERENCE_UPDATED;
        let told: Arc<str> = "event".into();
        let none: Arc<str> = "".into();
        let word = |denied: bool, origin: &Arc<str>| Entry {
            at_ms,
            denied,
            event: found.event_id,
            source: if changed { told.clone() } else { origin.clone() },
            basis_at_ms: 0,
            basis: none.clone(),
        };
        for (purpose, origin) in &evidence.denied {
            if merge_into(leaf.own_consent(), purpose, word(true, origin)) {
                leaf.size += CONSENT_BYTES;
            }
            if changed {
                self.withdraw(leaf, purpose, at_ms);
            }
        }
        for (purpose, origin) in &evidence.granted {
            let (kind, name) = origin.split_once(':').unwrap_or((origin, ""));
            let entry = if kind == BASIS {
                if name.is_empty() {
                    continue;
                }
                Entry {
                    at_ms: 0,
                    denied: false,
                    event: 0,
                    source: none.clone(),
                    basis_at_ms: at_ms,
                    basis: name.into(),
                }
            } else {
                word(false, origin)
            };
            if merge_into(leaf.own_consent(), purpose, entry) {
                leaf.size += CONSENT_BYTES;
            }
        }
    }

    fn withdraw(&self, leaf: &mut Leaf, purpose: &str, at_ms: i64) {
        let rare = leaf.rare();
        match rare.purged.iter_mut().find(|(held, _)| held == purpose) {
            Some((_, held)) if at_ms > *held => *held = at_ms,
            Some(_) => return,
            None => rare.purged.push((purpose.to_owned(), at_ms)),
        }
        let names: Vec<String> = rare.traits.iter().map(|(name, _)| name.clone()).collect();
        for name in names {
            if self.rules.purpose_of(&name) == purpose {
                let rare = leaf.rare();
                let before = rare.trait_size(&name);
                purge_trait(&mut rare.traits, &name, at_ms);
                let after = rare.trait_size(&name);
                leaf.size += after - before;
            }
        }
    }

    fn weigh(&self, leaf: &mut Leaf) {
        if leaf.size > self.rules.leaf_bytes_max {
            leaf.expire(&self.plan);
            leaf.quarantined = leaf.quarantined || leaf.size > self.rules.leaf_bytes_max / 4 * 3;
        }
    }
}

enum One<'a> {
    None,
    Edge(&'a [u8]),
    Several,
}

/// What edges a record states, if it is at most one.
fn only_edge<'a>(bytes: &'a [u8], found: &Found) -> One<'a> {
    match bytes.get(found.edges.start) {
        _ if found.edges.is_empty() => One::None,
        Some(0x90) => One::None,
        Some(0x91) => One::Edge(&bytes[found.edges.start + 1..found.edges.end]),
        _ => One::Several,
    }
}

fn remembers(leaf: &Leaf, job: &str, event: u64) -> bool {
    leaf.rare
        .as_ref()
        .is_some_and(|rare| rare.jobs.iter().any(|(held, events)| held == job && events.contains(&event)))
}

fn fold_words(leaf: &mut Leaf, found: &Found, words: &Arc<Words>) {
    let at_ms = found.occurred_at_ms.min(found.received_at_ms).max(0);
    let event = found.event_id;
    if leaf.words_at_ms >= 0 && leaf.words.as_ref().is_some_and(|held| Arc::ptr_eq(held, words)) {
        if (at_ms, event) > (leaf.words_at_ms, leaf.words_event) {
            leaf.words_at_ms = at_ms;
            leaf.words_event = event;
        }
        return;
    }
    let new = words.iter().filter(|word| !leaf.knows(&word.purpose)).count();
    leaf.size += CONSENT_BYTES * new as i64;
    if leaf.words_at_ms >= 0 {
        leaf.own_consent();
    }
    leaf.words = Some(words.clone());
    leaf.words_at_ms = at_ms;
    leaf.words_event = event;
}

type Traits = Vec<(String, Vec<Trait>)>;

fn place_of(traits: &Traits, name: &str) -> Result<usize, usize> {
    traits.binary_search_by(|(held, _)| held.as_str().cmp(name))
}

/// Merge a register into those of a leaf; see `core/identity/traits.py`.
fn fold_trait(traits: &mut Traits, name: &str, mut one: Trait, purged_ms: i64) {
    if one.at < purged_ms {
        one.value = Raw::nil();
    }
    let place = match place_of(traits, name) {
        Ok(place) => place,
        Err(place) => {
            traits.insert(place, (name.to_owned(), vec![one]));
            return;
        }
    };
    let line = &mut traits[place].1;
    let Some(mut winner) = line.pop() else { return };
    let loser = if winner.place() < one.place() { std::mem::replace(&mut winner, one) } else { one };
    if line.is_empty() && loser.at <= winner.at {
        line.push(winner);
        return;
    }
    line.push(loser);
    beneath(&winner, line, purged_ms);
    line.push(winner);
}

fn purge_trait(traits: &mut Traits, name: &str, purged_ms: i64) {
    let Ok(place) = place_of(traits, name) else { return };
    let line = &mut traits[place].1;
    let Some(mut winner) = line.pop() else { return };
    if !line.is_empty() {
        beneath(&winner, line, purged_ms);
    }
    if winner.at < purged_ms {
        winner.value = Raw::nil();
    }
    line.push(winner);
}

/// Keep of the beaten registers those that may stand again: of each lower rank one that was said later.
fn beneath(winner: &Trait, losers: &mut Vec<Trait>, purged_ms: i64) {
    losers.sort_by_key(|one| std::cmp::Reverse(one.place()));
    let mut latest = winner.at.max(purged_ms.saturating_sub(1));
    losers.retain(|one| {
        let kept = one.at > latest;
        latest = latest.max(one.at);
        kept
    });
    losers.reverse();
}
