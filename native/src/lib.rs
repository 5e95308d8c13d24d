//! The fold of one partition without a Python object for each event: `penstock.flows.native` drives it.
//!
//! It knows the step, the leaf's bytes and the built-in aggregates. Whatever it does not know it leaves to
//! Python, record by record: the leaf goes over as its bytes and comes back as its bytes.

#![deny(unsafe_code)]
// A second pointer makes an accumulator sixteen bytes instead of thirty-two, and most have none.
#![allow(clippy::box_collection)]

mod acc;
mod cell;
mod consent;
mod edge;
mod fields;
mod hash;
mod hashes;
mod held;
mod instant;
mod intake;
mod json;
mod leaf;
mod msgpack;
mod plan;
mod raw;
mod record;
mod routing;
mod step;
mod zone;

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, TryLockError};

use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyBytes, PyList, PyTuple};

use consent::{Evidence, Word, WordsTable};
use held::{Body, Held, LeafId, Slot};
use leaf::{Leaf, NO_VERSION, Version};
use msgpack::{NIL, Reader};
use plan::{Folding, Plan};
use record::{Found, part, text_at};
use step::{Logged, Outcome, PREFERENCE_UPDATED, Rules, Step, Verdict};
use zone::Zone;

const FORMAT: u32 = 4;
const VERDICTS_MAX: usize = 10_000;

/// One record of the slice at hand.
struct Item {
    offset: i64,
    logged_at_ms: i64,
    bytes: PyBackedBytes,
    /// None if Python has to read it.
    found: Option<Found>,
    verdict: Option<Arc<Verdict>>,
    leaf: LeafId,
}

/// The fold of one partition; one thread at a time.
///
/// Its state is lent to Rust alone: what Python allocates, for arguments and results, may collect garbage, and a
/// finalizer or another thread may then call for this fold. So arguments are read before, results made after.
#[pyclass(module = "penstock_native", frozen)]
struct Fold {
    state: Mutex<State>,
    /// `Plan::calendar`, which does not change.
    calendar: bool,
    broken: AtomicBool,
}

struct State {
    step: Step,
    words: WordsTable,
    verdicts: HashMap<Vec<u8>, Arc<Verdict>>,
    latest: Option<(Vec<u8>, Arc<Verdict>)>,
    held: Held,
    slice: Vec<Item>,
    tally: [i64; 6],
}

type Taken<'py> = (Bound<'py, PyBytes>, Version, Version, Option<Bound<'py, PyBytes>>);
type Shown<'py> = (Version, Version, Option<Bound<'py, PyBytes>>);
type Scanned<'py> = (Vec<Bound<'py, PyBytes>>, Vec<usize>, Vec<usize>, Vec<i64>);
type Ran = (usize, Vec<(usize, Vec<usize>)>, Vec<usize>, Vec<usize>);

#[pymethods]
impl Fold {
    #[new]
    fn new(plan: &[u8], rules: &[u8]) -> PyResult<Fold> {
        let unknown = |_| PyValueError::new_err("definitions that the native fold does not read");
        let plan = Plan::parse(plan).map_err(unknown)?;
        let rules = Rules::parse(rules).map_err(unknown)?;
        let calendar = plan.calendar;
        let state = State {
            step: Step::new(plan, rules),
            words: WordsTable::default(),
            verdicts: HashMap::new(),
            latest: None,
            held: Held::default(),
            slice: Vec::new(),
            tally: [0; 6],
        };
        Ok(Fold { state: Mutex::new(state), calendar, broken: AtomicBool::new(false) })
    }

    /// Take a slice of records to be folded: `(leaves that are not held, records for Python to read,
    /// records whose evidence is to be judged, quarters of an hour whose offset is to be told)`.
    /// The list is of records, or of their bytes alone, with the offset of its first and the stamp of all.
    #[pyo3(signature = (records, start, stop, at=None))]
    fn scan<'py>(
        &self,
        py: Python<'py>,
        records: &Bound<'py, PyList>,
        start: usize,
        stop: usize,
        at: Option<(i64, i64)>,
    ) -> PyResult<Scanned<'py>> {
        self.guarded(|fold| fold.scan_slice(py, records, start, stop, at))
    }

    /// Whether calendar periods are folded, so that offsets are to be told.
    #[getter]
    fn calendar(&self) -> bool {
        self.calendar
    }

    /// Tell the offset of local time in a quarter of an hour; None if it changes within it.
    fn tell(&self, quarter: i64, offset_ms: Option<i64>) -> PyResult<()> {
        self.guarded(|fold| {
            if fold.step.plan.zone.is_full() {
                // The clocks of the leaves are needed to write them; all else is asked for again.
                let held = fold.held.slots.values().filter_map(|slot| match &slot.body {
                    Body::Here(leaf) => Some(Zone::quarter(leaf.clock_ms)),
                    Body::InPython(_) => None,
                });
                let clocks = held.chain([0]).collect();
                fold.step.plan.zone.keep(&clocks);
            }
            fold.step.plan.zone.tell(quarter, offset_ms);
            Ok(())
        })
    }

    /// Whether a bug has ended it: nothing of it is to be used any more.
    #[getter]
    fn broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }

    /// Tell what the evidence of a record of the slice permits and says.
    fn judge(
        &self,
        place: usize,
        mask: u64,
        permitted: Vec<String>,
        words: Option<Vec<(String, bool, String)>>,
    ) -> PyResult<()> {
        self.guarded(|fold| fold.take_verdict(place, mask, permitted, words))
    }

    /// Fold the slice from a place on, up to its end or to a record that Python has to fold:
    /// `(that place, links, letters, words of permission)`.
    fn run(&self, start: usize, generation: i64) -> PyResult<Ran> {
        self.guarded(|fold| fold.run_slice(start, generation))
    }

    /// Hold a leaf: a new one, or one of its bytes; False if Python has to keep it.
    fn put(&self, leaf: &[u8], version: Version, raw: Option<&[u8]>) -> PyResult<bool> {
        let leaf = id_of(leaf)?;
        self.guarded(|fold| {
            let body = match raw {
                None => Some(Leaf::new(&fold.step.plan, &mut fold.step.texts)),
                Some(raw) => fold.decoded(raw, version),
            };
            let here = body.is_some();
            let body = body.map_or(Body::InPython(version), Body::Here);
            fold.held.put(leaf, Slot { base: version, dirty_from: -1, body });
            Ok(here)
        })
    }

    /// Take back a leaf that Python has folded into; None for one that it keeps.
    fn replace(
        &self,
        leaf: &[u8],
        version: Version,
        raw: Option<&[u8]>,
        dirty: Option<i64>,
    ) -> PyResult<bool> {
        let leaf = id_of(leaf)?;
        self.guarded(|fold| {
            let body = raw.and_then(|raw| fold.decoded(raw, version));
            let here = body.is_some();
            if let Some(slot) = fold.held.slots.get_mut(&leaf) {
                slot.body = body.map_or(Body::InPython(version), Body::Here);
            }
            if let Some(offset) = dirty {
                fold.held.touch(&leaf, offset);
            }
            Ok(here)
        })
    }

    /// A leaf's version, base and bytes; the bytes are None if Python has it, and all is None if it is not held.
    fn leaf<'py>(&self, py: Python<'py>, leaf: &[u8]) -> PyResult<Option<Shown<'py>>> {
        self.guarded(|fold| {
            let Some(slot) = fold.held.find(leaf) else { return Ok(None) };
            let raw = match &slot.body {
                Body::Here(body) => {
                    let mut out = Vec::with_capacity(1024);
                    body.encode(&fold.step.plan, &mut out);
                    Some(PyBytes::new(py, &out))
                }
                Body::InPython(_) => None,
            };
            Ok(Some((slot.version(), slot.base, raw)))
        })
    }

    fn version(&self, leaf: &[u8]) -> PyResult<Option<Version>> {
        self.guarded(|fold| Ok(fold.held.find(leaf).map(Slot::version)))
    }

    /// The versions of some leaves; None of one that is not held.
    fn versions(&self, leaves: Vec<PyBackedBytes>) -> PyResult<Vec<Option<Version>>> {
        self.guarded(|fold| Ok(leaves.iter().map(|leaf| fold.held.find(leaf).map(Slot::version)).collect()))
    }

    /// The leaves of some records that are not held, each once.
    fn absent<'py>(&self, py: Python<'py>, leaves: Vec<PyBackedBytes>) -> PyResult<Vec<Bound<'py, PyBytes>>> {
        self.lent(|fold| {
            let missing = leaves.iter().filter(|leaf| !fold.held.holds(leaf));
            missing.map(|leaf| PyBytes::new(py, leaf)).collect()
        })
    }

    /// Take changed leaves, oldest change first: `(leaf, base, version, bytes or None if Python has it)`.
    fn take<'py>(&self, py: Python<'py>, limit: usize, before: Option<i64>) -> PyResult<Vec<Taken<'py>>> {
        self.guarded(|fold| {
            let mut taken = Vec::new();
            let mut out = Vec::with_capacity(4096);
            while taken.len() < limit {
                let Some((leaf, first)) = fold.held.dirty.front().copied() else { break };
                if before.is_some_and(|before| first >= before) {
                    break;
                }
                fold.held.dirty.pop_front();
                let Some(slot) = fold.held.slots.get_mut(&leaf) else { continue };
                slot.dirty_from = -1;
                let raw = match &slot.body {
                    Body::Here(body) => {
                        out.clear();
                        body.encode(&fold.step.plan, &mut out);
                        Some(PyBytes::new(py, &out))
                    }
                    Body::InPython(_) => None,
                };
                taken.push((PyBytes::new(py, &leaf), slot.base, slot.version(), raw));
            }
            Ok(taken)
        })
    }

    /// Note what the store holds of some leaves.
    fn written(&self, writes: Vec<(PyBackedBytes, Version)>) -> PyResult<()> {
        self.lent(|fold| {
            for (leaf, version) in writes {
                if let Some(slot) = fold.held.find_mut(&leaf) {
                    slot.base = version;
                }
            }
        })
    }

    /// The first record that is not written, of the leaf that changed first.
    fn oldest(&self) -> PyResult<Option<i64>> {
        self.lent(|fold| fold.held.dirty.front().map(|(_, offset)| *offset))
    }

    fn evict<'py>(&self, py: Python<'py>, most: usize) -> PyResult<Vec<Bound<'py, PyBytes>>> {
        self.guarded(|fold| Ok(fold.held.evict(most).iter().map(|leaf| PyBytes::new(py, leaf)).collect()))
    }

    /// Let go of some leaves, whatever of them is not written.
    fn drop(&self, leaves: Vec<PyBackedBytes>) -> PyResult<()> {
        self.lent(|fold| {
            for leaf in leaves {
                if let Ok(leaf) = <&LeafId>::try_from(&leaf[..]) {
                    fold.held.remove(leaf);
                }
            }
        })
    }

    fn clear(&self) -> PyResult<()> {
        self.lent(|fold| fold.held.clear())
    }

    fn clear_dirty(&self) -> PyResult<()> {
        self.lent(|fold| fold.held.clear_dirty())
    }

    fn __len__(&self) -> PyResult<usize> {
        self.lent(|fold| fold.held.slots.len())
    }

    fn __contains__(&self, leaf: &[u8]) -> PyResult<bool> {
        self.lent(|fold| fold.held.holds(leaf))
    }

    fn leaves<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyBytes>>> {
        self.lent(|fold| fold.held.slots.keys().map(|leaf| PyBytes::new(py, leaf)).collect())
    }

    fn dirty<'py>(&self, py: Python<'py>) -> PyResult<Vec<(Bound<'py, PyBytes>, i64)>> {
        self.lent(|fold| {
            fold.held.dirty.iter().map(|(leaf, offset)| (PyBytes::new(py, leaf), *offset)).collect()
        })
    }

    fn dirty_count(&self) -> PyResult<usize> {
        self.lent(|fold| fold.held.dirty.len())
    }

    /// Records by what became of them since the last call, in the order of `Outcome`.
    fn counted(&self) -> PyResult<[i64; 6]> {
        self.lent(|fold| std::mem::take(&mut fold.tally))
    }
}

impl Fold {
    /// Run something; a bug in it is an error, and nothing of this fold is used after that.
    fn guarded<T>(&self, run: impl FnOnce(&mut State) -> PyResult<T>) -> PyResult<T> {
        self.require_whole()?;
        self.lent(|state| catch_unwind(AssertUnwindSafe(|| run(state))))?
            .unwrap_or_else(|_| Err(self.failed()))
    }

    /// Run something that cannot fail, which may be done with a fold that is broken.
    fn lent<T>(&self, run: impl FnOnce(&mut State) -> T) -> PyResult<T> {
        match self.state.try_lock() {
            Ok(mut state) => Ok(run(&mut state)),
            Err(TryLockError::Poisoned(state)) => Ok(run(&mut state.into_inner())),
            Err(TryLockError::WouldBlock) => {
                Err(PyRuntimeError::new_err("the native fold called for itself"))
            }
        }
    }

    fn require_whole(&self) -> PyResult<()> {
        if self.broken() { Err(self.failed()) } else { Ok(()) }
    }

    fn failed(&self) -> PyErr {
        self.broken.store(true, Ordering::Relaxed);
        PyRuntimeError::new_err("the native fold failed, and is not used any more")
    }
}

impl State {
    fn take_verdict(
        &mut self,
        place: usize,
        mask: u64,
        permitted: Vec<String>,
        words: Option<Vec<(String, bool, String)>>,
    ) -> PyResult<()> {
        let State { step, words: table, slice, verdicts, .. } = self;
        let item = slice.get_mut(place).ok_or_else(|| PyValueError::new_err("no such record"))?;
        let Some(found) = &item.found else { return Ok(()) };
        let raw = &item.bytes[found.evidence.clone()];
        let Ok(evidence) = Evidence::parse(raw, &mut step.texts) else {
            // Not as it is read here: Python reads it.
            item.found = None;
            return Ok(());
        };
        let none = step.texts.of("");
        let words = words.map(|words| {
            let word = |(purpose, denied, source): (String, bool, String)| Word {
                purpose: step.texts.of(&purpose),
                denied,
                source: step.texts.of(&source),
                none: none.clone(),
            };
            table.of(words.into_iter().map(word).collect())
        });
        if verdicts.len() >= VERDICTS_MAX {
            verdicts.clear();
        }
        verdicts.insert(raw.to_vec(), Arc::new(Verdict { mask, permitted, words, evidence }));
        Ok(())
    }

    fn decoded(&mut self, raw: &[u8], version: Version) -> Option<Leaf> {
        let State { step, words, .. } = self;
        Leaf::decode(raw, version, &step.plan, &mut step.texts, words).ok()
    }

    fn scan_slice<'py>(
        &mut self,
        py: Python<'py>,
        records: &Bound<'py, PyList>,
        start: usize,
        stop: usize,
        at: Option<(i64, i64)>,
    ) -> PyResult<Scanned<'py>> {
        self.slice.clear();
        let (mut unread, mut missing, mut judged) = (Vec::new(), Vec::new(), Vec::new());
        let mut asked: Vec<Vec<u8>> = Vec::new();
        let mut quarters = Vec::new();
        // No list of the slice is made: see `Fold`.
        for place in start..stop {
            let record = records.get_item(place)?;
            let (offset, logged_at_ms, bytes): (i64, i64, PyBackedBytes) = match at {
                Some((first, stamp)) => (first + place as i64, stamp, record.extract()?),
                None => {
                    let record = record.cast::<PyTuple>()?;
                    let offset = record.get_item(0)?.extract()?;
                    (offset, record.get_item(1)?.extract()?, record.get_item(2)?.extract()?)
                }
            };
            let place = self.slice.len();
            let mut found = self.readable(&bytes, logged_at_ms);
            let mut verdict = None;
            if let Some(parts) = &found {
                let raw = &bytes[parts.evidence.clone()];
                verdict = self.verdict(raw);
                if verdict.is_none() && parts.kind == record::PRIMARY && !asked.iter().any(|held| held == raw)
                {
                    asked.push(raw.to_vec());
                    judged.push(place);
                }
                if !self.held.slots.contains_key(&parts.leaf) {
                    missing.push(parts.leaf);
                }
                if self.step.plan.calendar {
                    for at_ms in [parts.occurred_at_ms, logged_at_ms] {
                        let quarter = Zone::quarter(at_ms);
                        if !self.step.plan.zone.was_told(at_ms) && !quarters.contains(&quarter) {
                            quarters.push(quarter);
                        }
                    }
                }
            } else {
                unread.push(place);
            }
            let leaf = found.as_mut().map_or([0; 16], |parts| parts.leaf);
            self.slice.push(Item { offset, logged_at_ms, bytes, found, verdict, leaf });
        }
        let mut each = std::collections::HashSet::new();
        missing.retain(|leaf| each.insert(*leaf));
        Ok((missing.iter().map(|leaf| PyBytes::new(py, leaf)).collect(), unread, judged, quarters))
    }

    /// Return where a record's parts are, if the whole of it can be folded here.
    fn readable(&mut self, bytes: &[u8], logged_at_ms: i64) -> Option<Found> {
        let found = Found::find(bytes).ok()?;
        if u128::from(logged_at_ms.unsigned_abs()) >= msgpack::WIDE {
            return None;
        }
        if found.kind == record::SEAL {
            return None;
        }
        let name = text_at(bytes, &found.name);
        if matches!(self.step.event(name), Some(Folding::InPython)) {
            return None;
        }
        if self.step.plan.calendar && name == PREFERENCE_UPDATED {
            return None;
        }
        if !found.traits.is_empty() && bytes[found.traits.start] != 0x80 {
            let mut scratch = Vec::new();
            msgpack::put_again(&mut scratch, &mut part(bytes, &found.traits)).ok()?;
        }
        Some(found)
    }

    fn verdict(&mut self, raw: &[u8]) -> Option<Arc<Verdict>> {
        if let Some((_, verdict)) = self.latest.as_ref().filter(|(held, _)| held == raw) {
            return Some(verdict.clone());
        }
        let verdict = self.verdicts.get(raw)?.clone();
        self.latest = Some((raw.to_vec(), verdict.clone()));
        Some(verdict)
    }

    fn run_slice(&mut self, start: usize, generation: i64) -> PyResult<Ran> {
        let (mut links, mut letters, mut spoken) = (Vec::new(), Vec::new(), Vec::new());
        let slice = std::mem::take(&mut self.slice);
        // All leaves are looked at before any is changed: to wait for memory together is a third of the time.
        let mut warmed = 0;
        for item in &slice[start..] {
            if let Some(slot) = self.held.slots.get(&item.leaf) {
                warmed ^= match &slot.body {
                    Body::Here(leaf) => leaf.version.1,
                    Body::InPython(version) => version.1,
                };
            }
        }
        std::hint::black_box(warmed);
        let mut place = start;
        let mut new_links = Vec::new();
        while place < slice.len() {
            let item = &slice[place];
            let Some(found) = &item.found else { break };
            let zone = &self.step.plan.zone;
            let placed = |at_ms| zone.offset_ms(at_ms).is_some();
            if self.step.plan.calendar && !(placed(found.occurred_at_ms) && placed(item.logged_at_ms)) {
                break;
            }
            let verdict = match &item.verdict {
                Some(verdict) => Some(verdict.clone()),
                None => self.verdict(&item.bytes[found.evidence.clone()]),
            };
            let State { step, held, tally, .. } = self;
            let Some(slot) = held.slots.get_mut(&found.leaf) else { break };
            let Body::Here(leaf) = &mut slot.body else { break };
            if leaf.full {
                break;
            }
            let logged = Logged {
                bytes: &item.bytes,
                found,
                version: (generation, item.offset),
                logged_at_ms: item.logged_at_ms,
            };
            let outcome = match &verdict {
                Some(verdict) => step.fold(leaf, &logged, verdict, &mut new_links),
                None if found.kind != record::PRIMARY => {
                    let nothing = Verdict {
                        mask: 0,
                        permitted: Vec::new(),
                        words: None,
                        evidence: Evidence { unknown: true, granted: Vec::new(), denied: Vec::new() },
                    };
                    step.fold(leaf, &logged, &nothing, &mut new_links)
                }
                None => break,
            };
            tally[outcome as usize] += 1;
            if outcome != Outcome::Skipped {
                if slot.dirty_from < 0 {
                    slot.dirty_from = item.offset;
                    held.dirty.push_back((found.leaf, item.offset));
                }
                if !new_links.is_empty() {
                    links.push((place, std::mem::take(&mut new_links)));
                }
                if outcome == Outcome::Dead {
                    letters.push(place);
                }
                if outcome != Outcome::Deduplicated
                    && step.rules.is_permission(text_at(&item.bytes, &found.name))
                {
                    spoken.push(place);
                }
            }
            place += 1;
        }
        self.slice = slice;
        if place == self.slice.len() {
            self.slice.clear();
        }
        Ok((place, links, letters, spoken))
    }
}

fn id_of(leaf: &[u8]) -> PyResult<LeafId> {
    leaf.try_into().map_err(|_| PyValueError::new_err("the id of a leaf has 16 bytes"))
}

/// The fold of partitions for Penstock.
#[pymodule]
fn penstock_native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("FORMAT", FORMAT)?;
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_class::<Fold>()?;
    module.add_class::<intake::Intake>()?;
    let _ = (NIL, NO_VERSION, Reader::new(&[]));
    Ok(())
}
