//! Answering: rows go in one after the other, what is kept of them is bounded.

use std::{
    cmp::Ordering,
    collections::{HashMap, HashSet},
    sync::Arc,
};

use super::{
    parser::{Direction, Distinct, Function},
    plan::{Aggregate, OutputColumn, Part, Plan},
    value::{Cell, Kind, Value},
};
use crate::text::LabelKey;

/// A row of a table.
pub trait Row {
    /// The value of a column that the plan reads; see [`super::Schema::place`].
    fn column(&self, place: usize) -> Value<'_>;
    /// The value of a label of the row's device.
    fn label(&self, key: &LabelKey) -> Value<'_>;
}

/// How much an answer may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Rows of the answer. There is no more, whatever the question says.
    pub rows_max: usize,
    /// Groups, or different rows.
    pub groups_max: usize,
    /// Memory for rows and groups, about.
    pub bytes_max: usize,
}

/// Whether more rows can change the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    More,
    /// The answer is complete as far as it goes.
    Enough,
}

/// A question that costs more than it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Exceeded {
    #[error(
        "the answer has more than {0} different groups or rows; group by less, or narrow the question with WHERE"
    )]
    Groups(usize),
    #[error("the answer takes more than {0} bytes of memory; select less, or narrow the question with WHERE")]
    Bytes(usize),
}

/// What a question is answered with.
#[derive(Debug, Clone)]
pub struct Answer {
    pub columns: Vec<OutputColumn>,
    pub rows: Vec<Vec<Cell>>,
    /// There are more rows than the limits allow.
    pub is_truncated: bool,
}

/// A question that is being answered.
pub struct Run {
    plan: Arc<Plan>,
    limits: Limits,
    /// What was taken that may be in the answer, with the values it is ordered by.
    rows: Vec<Kept>,
    groups: HashMap<Vec<u8>, Group>,
    different: HashSet<Vec<u8>>,
    bytes: usize,
    /// Rows left away behind those that are kept.
    dropped: bool,
    key: Vec<u8>,
}

struct Kept {
    order: Vec<Cell>,
    cells: Vec<Cell>,
}

struct Group {
    keys: Vec<Cell>,
    states: Vec<State>,
}

/// An aggregate on its way.
struct State {
    count: u64,
    sum: i128,
    real: f64,
    /// The error of `real`, so that the order of rows matters little (Kahan and Babuška).
    rest: f64,
    best: Cell,
    different: HashSet<Vec<u8>>,
}

impl Run {
    pub fn new(plan: Arc<Plan>, limits: Limits) -> Run {
        Run {
            plan,
            limits,
            rows: Vec::new(),
            groups: HashMap::new(),
            different: HashSet::new(),
            bytes: 0,
            dropped: false,
            key: Vec::new(),
        }
    }

    /// Takes a row.
    ///
    /// # Errors
    ///
    /// Says which limit is reached; the question cannot be answered then.
    pub fn take(&mut self, row: &impl Row) -> Result<Flow, Exceeded> {
        let plan = &*Arc::clone(&self.plan);
        let get = |part: &Part| match part {
            Part::Column(place) => row.column(*place),
            Part::Label(label) => plan.labels.get(*label).map_or(Value::Null, |key| row.label(key)),
            Part::Literal(_) | Part::Key(_) | Part::Aggregate(_) => Value::Null,
        };
        if let Some(filter) = &plan.filter
            && !holds(filter.truth(&get))
        {
            return Ok(Flow::More);
        }
        match plan.is_grouped {
            true => self.count_in(&get),
            false => self.keep(&get),
        }
    }

    /// The answer to what was taken.
    ///
    /// # Errors
    ///
    /// As [`Run::take`].
    pub fn finish(mut self) -> Result<Answer, Exceeded> {
        if self.plan.is_grouped {
            self.close_groups()?;
        }
        self.sort();
        let Run {
            plan,
            limits,
            rows,
            dropped,
            ..
        } = self;
        let offset = usize::try_from(plan.offset).unwrap_or(usize::MAX);
        let asked = plan
            .limit
            .map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
        let most = asked.min(limits.rows_max);
        let found = rows.len().saturating_sub(offset);
        let rows = rows.into_iter().skip(offset).take(most).map(|kept| kept.cells);
        Ok(Answer {
            columns: plan.columns.clone(),
            rows: rows.collect(),
            is_truncated: asked > most && (found > most || dropped),
        })
    }

    /// Rows that have to be kept to know the answer, and whether there are more.
    fn kept_max(&self) -> usize {
        let asked = self
            .plan
            .limit
            .map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
        let offset = usize::try_from(self.plan.offset).unwrap_or(usize::MAX);
        asked
            .min(self.limits.rows_max.saturating_add(1))
            .saturating_add(offset)
    }

    fn keep<'v>(&mut self, get: &impl Fn(&Part) -> Value<'v>) -> Result<Flow, Exceeded> {
        let (plan, most) = (&*Arc::clone(&self.plan), self.kept_max());
        let full = self.rows.len() >= most;
        if full && plan.order.is_empty() {
            return Ok(Flow::Enough);
        }
        let cells = || {
            plan.columns
                .iter()
                .map(|column| get(&column.part).to_cell())
                .collect()
        };
        if plan.distinct == Distinct::Different && !self.is_new(|part| get(part))? {
            return Ok(Flow::More);
        }
        let order: Vec<Cell> = plan.order.iter().map(|part| get(&part.part).to_cell()).collect();
        self.push(Kept {
            order,
            cells: cells(),
        })?;
        if plan.order.is_empty() {
            return Ok(match self.rows.len() >= most {
                true => Flow::Enough,
                false => Flow::More,
            });
        }
        // Twice as many rows as are needed are kept before the last half is thrown away: sorting costs little for each row.
        if self.rows.len() >= most.saturating_mul(2).max(1024) {
            self.sort();
            let away = self.rows.drain(most..);
            let freed: usize = away
                .map(|kept| bytes_of(&kept.order) + bytes_of(&kept.cells))
                .sum();
            self.bytes = self.bytes.saturating_sub(freed);
            self.dropped = true;
        }
        Ok(Flow::More)
    }

    /// Whether no row before had the same selected values.
    fn is_new<'v>(&mut self, get: impl Fn(&Part) -> Value<'v>) -> Result<bool, Exceeded> {
        let mut key = std::mem::take(&mut self.key);
        key.clear();
        for column in &self.plan.columns {
            get(&column.part).key(&mut key);
        }
        let is_new = !self.different.contains(&key);
        if is_new {
            self.spend(key.len() + size_of::<Vec<u8>>() * 2)?;
            self.different.insert(key.clone());
            if self.different.len() > self.limits.groups_max {
                return Err(Exceeded::Groups(self.limits.groups_max));
            }
        }
        self.key = key;
        Ok(is_new)
    }

    fn push(&mut self, kept: Kept) -> Result<(), Exceeded> {
        self.spend(bytes_of(&kept.order) + bytes_of(&kept.cells))?;
        self.rows.push(kept);
        Ok(())
    }

    fn spend(&mut self, bytes: usize) -> Result<(), Exceeded> {
        self.bytes = self.bytes.saturating_add(bytes);
        match self.bytes > self.limits.bytes_max {
            true => Err(Exceeded::Bytes(self.limits.bytes_max)),
            false => Ok(()),
        }
    }

    fn count_in<'v>(&mut self, get: &impl Fn(&Part) -> Value<'v>) -> Result<Flow, Exceeded> {
        let plan = &*Arc::clone(&self.plan);
        let mut key = std::mem::take(&mut self.key);
        key.clear();
        for part in &plan.group_by {
            get(part).key(&mut key);
        }
        if !self.groups.contains_key(&key) {
            let keys: Vec<Cell> = plan.group_by.iter().map(|part| get(part).to_cell()).collect();
            let states = plan.aggregates.len() * size_of::<State>();
            self.spend(key.len() + bytes_of(&keys) + states + size_of::<Group>())?;
            if self.groups.len() >= self.limits.groups_max {
                return Err(Exceeded::Groups(self.limits.groups_max));
            }
            let states = plan.aggregates.iter().map(|_| State::new()).collect();
            self.groups.insert(key.clone(), Group { keys, states });
        }
        let mut spent = 0;
        if let Some(group) = self.groups.get_mut(&key) {
            for (state, aggregate) in group.states.iter_mut().zip(&plan.aggregates) {
                spent += state.take(aggregate, aggregate.of.as_ref().map(get));
            }
        }
        self.key = key;
        self.spend(spent)?;
        Ok(Flow::More)
    }

    /// Groups become rows.
    fn close_groups(&mut self) -> Result<(), Exceeded> {
        let plan = &*Arc::clone(&self.plan);
        if plan.group_by.is_empty() && self.groups.is_empty() {
            let states = plan.aggregates.iter().map(|_| State::new()).collect();
            let group = Group {
                keys: Vec::new(),
                states,
            };
            self.groups.insert(Vec::new(), group);
        }
        let mut groups: Vec<(Vec<u8>, Group)> = std::mem::take(&mut self.groups).into_iter().collect();
        // A hash map has no order, and the same question has the same answer.
        groups.sort_unstable_by(|(left, _), (right, _)| left.cmp(right));
        for (_, group) in groups {
            let states = group.states.iter().zip(&plan.aggregates);
            let totals: Vec<Cell> = states.map(|(state, aggregate)| state.total(aggregate)).collect();
            let get = |part: &Part| match part {
                Part::Key(key) => group.keys.get(*key).map_or(Value::Null, Cell::value),
                Part::Aggregate(aggregate) => totals.get(*aggregate).map_or(Value::Null, Cell::value),
                Part::Column(_) | Part::Label(_) | Part::Literal(_) => Value::Null,
            };
            if let Some(having) = &plan.having
                && !holds(group_truth(having, &group.keys, &totals))
            {
                continue;
            }
            if plan.distinct == Distinct::Different && !self.is_new(get)? {
                continue;
            }
            let order = plan.order.iter().map(|part| get(&part.part).to_cell()).collect();
            let cells = plan
                .columns
                .iter()
                .map(|column| get(&column.part).to_cell())
                .collect();
            self.push(Kept { order, cells })?;
        }
        Ok(())
    }

    fn sort(&mut self) {
        let plan = Arc::clone(&self.plan);
        let order = &plan.order;
        if order.is_empty() {
            return;
        }
        self.rows.sort_by(|left, right| {
            let pairs = left.order.iter().zip(&right.order).zip(order);
            for ((left, right), part) in pairs {
                let compared = left.value().order(right.value(), part.kind);
                let compared = match part.direction {
                    Direction::Ascending => compared,
                    Direction::Descending => compared.reverse(),
                };
                if compared != Ordering::Equal {
                    return compared;
                }
            }
            Ordering::Equal
        });
    }
}

fn holds(truth: Option<bool>) -> bool {
    truth == Some(true)
}

fn group_truth<'v>(having: &'v super::plan::Node, keys: &'v [Cell], totals: &'v [Cell]) -> Option<bool> {
    having.truth(&|part: &Part| match part {
        Part::Key(key) => keys.get(*key).map_or(Value::Null, Cell::value),
        Part::Aggregate(aggregate) => totals.get(*aggregate).map_or(Value::Null, Cell::value),
        Part::Column(_) | Part::Label(_) | Part::Literal(_) => Value::Null,
    })
}

fn bytes_of(cells: &[Cell]) -> usize {
    cells.iter().map(Cell::bytes).sum()
}

impl State {
    fn new() -> State {
        State {
            count: 0,
            sum: 0,
            real: 0.0,
            rest: 0.0,
            best: Cell::Null,
            different: HashSet::new(),
        }
    }

    /// Counts a value in, and answers how much memory that took. Nothing stands for `count(*)`.
    fn take(&mut self, aggregate: &Aggregate, value: Option<Value<'_>>) -> usize {
        let Some(value) = value else {
            self.count += 1;
            return 0;
        };
        if value.is_null() {
            return 0;
        }
        let mut spent = 0;
        if aggregate.distinct == Distinct::Different {
            let mut key = Vec::new();
            value.key(&mut key);
            spent = key.len() + size_of::<Vec<u8>>() * 2;
            if !self.different.insert(key) {
                return 0;
            }
        }
        self.count += 1;
        match aggregate.function {
            Function::Count => {}
            Function::Sum | Function::Avg => match value {
                Value::Int(value) => self.sum += i128::from(value),
                Value::Real(value) => self.add(value),
                Value::Null | Value::Bool(_) | Value::Time(_) | Value::Text(_) => {}
            },
            Function::Min | Function::Max => {
                let wanted = match aggregate.function {
                    Function::Min => Ordering::Less,
                    _ => Ordering::Greater,
                };
                let is_better = match value.compare(self.best.value(), aggregate.kind) {
                    None => true,
                    Some(order) => order == wanted,
                };
                if is_better {
                    self.best = value.to_cell();
                }
            }
        }
        spent
    }

    fn add(&mut self, value: f64) {
        let sum = self.real + value;
        self.rest += match self.real.abs() >= value.abs() {
            true => (self.real - sum) + value,
            false => (value - sum) + self.real,
        };
        self.real = sum;
    }

    fn total(&self, aggregate: &Aggregate) -> Cell {
        let real = || self.real + self.rest + self.sum as f64;
        match aggregate.function {
            Function::Count => Cell::Int(i64::try_from(self.count).unwrap_or(i64::MAX)),
            Function::Min | Function::Max => self.best.clone(),
            Function::Sum | Function::Avg if self.count == 0 => Cell::Null,
            Function::Avg => Cell::Real(real() / self.count as f64),
            Function::Sum if aggregate.kind == Kind::Int => {
                i64::try_from(self.sum).map_or_else(|_| Cell::Real(self.sum as f64), Cell::Int)
            }
            Function::Sum => Cell::Real(real()),
        }
    }
}
