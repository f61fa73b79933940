//! Searches page by page (RFC 2696). References to other servers are counted and never followed.

use muster_ldap::{Entry, Filter, Page, Range, Response, Scope, Search, parse_range, search};

use super::config::Query;
use super::connect::{LdapError, Session, Step};

/// How long a directory may take for one page.
const TIME_LIMIT_SECONDS: u32 = 60;
/// Pages without an entry, one after the other: a directory that sends these forever is not waited for.
const EMPTY_PAGES_MAX: u32 = 100;
/// Ids that one search asks for.
const IDS_PER_SEARCH: u16 = 100;
/// Answers that hold the values of one attribute.
const RANGES_MAX: u32 = 2_000;

/// How a search went.
#[derive(Debug, Default)]
pub struct Searched {
    /// Why not everything was read, where that is so.
    pub cut: Option<String>,
    pub referrals: usize,
}

/// What a search reads, and how much of it.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    pub page_entries: u32,
    pub entries_max: usize,
    pub pages_max: usize,
}

/// Reads every entry of a query and hands each on.
///
/// # Errors
/// The directory refused, or the connection ended. Where it only stopped early, the answer says so.
pub async fn every_entry(
    session: &mut Session,
    query: &Query,
    attributes: &[&str],
    bounds: Bounds,
    mut take: impl FnMut(Entry),
) -> Result<Searched, LdapError> {
    let mut all = Searched::default();
    let mut count = 0;
    for base in &query.bases {
        let (mut cookie, mut empty_pages, mut pages) = (Vec::new(), 0, 0);
        loop {
            let asked = Search {
                base,
                scope: query.scope,
                filter: &query.filter,
                attributes,
                time_limit_seconds: TIME_LIMIT_SECONDS,
                page: Some(Page {
                    size: bounds.page_entries,
                    cookie,
                }),
            };
            let before = count;
            let end = one(session, &asked, |entry| {
                count += 1;
                if count <= bounds.entries_max {
                    take(entry);
                }
            })
            .await?;
            if let Some(refused) = end.refused {
                return Err(LdapError::new(Step::Search, format!("{base}: {refused}")));
            }
            all.referrals += end.referrals;
            if count > bounds.entries_max {
                all.cut = Some(format!("there are more than {} entries", bounds.entries_max));
                return Ok(all);
            }
            if let Some(cut) = end.cut {
                all.cut = Some(format!("{base}: {cut}"));
                break;
            }
            pages += 1;
            empty_pages = if count == before { empty_pages + 1 } else { 0 };
            cookie = end.cookie.unwrap_or_default();
            if cookie.is_empty() || pages == bounds.pages_max {
                break;
            }
            if empty_pages == EMPTY_PAGES_MAX {
                all.cut = Some(format!("{base}: page after page holds nothing"));
                break;
            }
        }
    }
    Ok(all)
}

/// The values of an attribute from a place on, where a directory answers only a part at a time (MS-ADTS, section
/// 3.1.1.3.1.3.3). Hands each part on; `take` says whether there is room for more. Answers why there are values that did not
/// come: that is a matter of this one entry.
///
/// # Errors
/// The connection ended.
pub async fn more_values(
    session: &mut Session,
    dn: &str,
    attribute: &str,
    first: u32,
    values_max: usize,
    mut take: impl FnMut(&[Vec<u8>]) -> bool,
) -> Result<Option<String>, LdapError> {
    let filter = Filter::Present("objectClass".to_owned());
    let gap = |detail: &str| Ok(Some(format!("{attribute}: {detail}")));
    let mut parts = Parts::new(attribute, first, values_max);
    for _ in 0..RANGES_MAX {
        let description = parts.description();
        let asked = Search {
            base: dn,
            scope: Scope::Base,
            filter: &filter,
            attributes: &[&description],
            time_limit_seconds: TIME_LIMIT_SECONDS,
            page: None,
        };
        let mut found = None;
        let end = one(session, &asked, |entry| found = Some(entry)).await?;
        if let Some(why) = end.refused.or(end.cut) {
            return gap(&why);
        }
        match parts.take(found.as_ref()) {
            Err(why) => return gap(why),
            Ok((values, _)) if !take(values) => return gap("there is no room for more"),
            Ok((_, true)) => return Ok(None),
            Ok((_, false)) => {}
        }
    }
    gap("it has too many parts")
}

/// Which ids of these are there below the bases of a query, and found by its filter.
///
/// # Errors
/// The directory refused or stopped early, or the connection ended: nobody knows then.
pub async fn those_there(
    session: &mut Session,
    query: &Query,
    attribute: &str,
    ids: &[Vec<u8>],
    mut take: impl FnMut(Entry),
) -> Result<(), LdapError> {
    for ids in ids.chunks(usize::from(IDS_PER_SEARCH)) {
        let any = ids
            .iter()
            .map(|id| Filter::Equal(attribute.to_owned(), id.clone()));
        let filter = Filter::And(vec![query.filter.clone(), Filter::Or(any.collect())]);
        let query = Query {
            filter,
            ..query.clone()
        };
        let bounds = Bounds {
            page_entries: u32::from(IDS_PER_SEARCH),
            // Bases that lie in each other give an entry twice.
            entries_max: ids.len() * query.bases.len(),
            pages_max: usize::MAX,
        };
        let searched = every_entry(session, &query, &[attribute], bounds, &mut take).await?;
        if let Some(cut) = searched.cut {
            return Err(LdapError::new(Step::Search, cut));
        }
    }
    Ok(())
}

/// Values that come part by part. Pure: what to ask for out, what was found in.
pub struct Parts<'a> {
    attribute: &'a str,
    first: u32,
    count: usize,
    values_max: usize,
}

impl<'a> Parts<'a> {
    pub fn new(attribute: &'a str, first: u32, values_max: usize) -> Self {
        Self {
            attribute,
            first,
            count: 0,
            values_max,
        }
    }

    /// What to ask for next.
    pub fn description(&self) -> String {
        format!("{};range={}-*", self.attribute, self.first)
    }

    /// Takes a part: its values, and whether it is the last one, which only the directory can say.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn take<'e>(&mut self, found: Option<&'e Entry>) -> Result<(&'e [Vec<u8>], bool), &'static str> {
        let found = found.ok_or("the entry is gone")?;
        let Some((range, part)) = range_of(found, self.attribute) else {
            return Err("the directory does not send the rest");
        };
        if range.first != self.first {
            return Err("its parts do not follow each other");
        }
        self.count += part.len();
        if self.count > self.values_max {
            return Err("it has more values than a group has members");
        }
        self.first = match next_of(range, part.len())? {
            None => return Ok((part, true)),
            Some(next) => next,
        };
        Ok((part, false))
    }
}

/// Where the part after one with so many values begins; nothing after the last one.
///
/// # Errors
/// The part does not hold what it says it holds.
pub fn next_of(range: Range, count: usize) -> Result<Option<u32>, &'static str> {
    let Some(last) = range.last else {
        return Ok(None);
    };
    let next = last.checked_add(1).ok_or("its parts have no end")?;
    match usize::try_from(next - range.first) == Ok(count) {
        true => Ok(Some(next)),
        false => Err("a part does not hold what it says it holds"),
    }
}

/// The part of an attribute's values that an entry holds, where it holds only a part.
pub fn range_of<'a>(entry: &'a Entry, attribute: &str) -> Option<(Range, &'a [Vec<u8>])> {
    entry.attributes.iter().find_map(|(description, values)| {
        let (name, range) = parse_range(description)?;
        name.eq_ignore_ascii_case(attribute)
            .then_some((range, values.as_slice()))
    })
}

struct End {
    cookie: Option<Vec<u8>>,
    cut: Option<String>,
    /// Why there is no answer.
    refused: Option<String>,
    referrals: usize,
}

/// One request and all its answers.
///
/// # Errors
/// The connection ended, or what came is no answer.
async fn one(
    session: &mut Session,
    asked: &Search<'_>,
    mut take: impl FnMut(Entry),
) -> Result<End, LdapError> {
    let failed = |detail: String| LdapError::new(Step::Search, format!("{}: {detail}", asked.base));
    let id = session.next_id();
    session
        .send(&search(id, asked))
        .await
        .map_err(|error| failed(error.to_string()))?;
    let mut referrals = 0;
    loop {
        let message = session.receive(id).await.map_err(failed)?;
        let next_page = message.next_page();
        match message.response {
            Response::Entry(entry) => take(entry),
            Response::Reference(count) => referrals += count,
            Response::SearchDone(outcome) => {
                let elsewhere = "the directory names another server for it, and references are not followed";
                let (cut, refused) = match outcome {
                    outcome if outcome.is_success() => (None, None),
                    outcome if outcome.is_cut_off() => (Some(outcome.sentence()), None),
                    outcome if outcome.is_referral => (None, Some(elsewhere.to_owned())),
                    outcome => (None, Some(outcome.sentence())),
                };
                let cookie = next_page.map_err(|error| failed(error.to_string()))?;
                return Ok(End {
                    cookie,
                    cut,
                    refused,
                    referrals,
                });
            }
            Response::Bound(_) | Response::Extended(_) | Response::Other(_) => {}
        }
    }
}
