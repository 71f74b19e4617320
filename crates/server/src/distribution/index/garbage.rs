//! What nothing leads to.

use pinnace_core::distribution::Digest;
use rusqlite::{Transaction, params};
use time::OffsetDateTime;

use super::{Answer, Index, forget};

/// What a collection would remove, or has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::distribution) struct Garbage {
    /// Manifests that nothing led to.
    pub manifests: usize,
    /// Blobs that no manifest refers to, and their bytes.
    pub blobs: Vec<(Digest, u64)>,
    /// Blobs that no manifest refers to and that are too young, and their bytes.
    pub young: Vec<(Digest, u64)>,
}

impl Index {
    /// Forgets blobs that no manifest refers to, unless they are young; with `untagged_age_s` first manifests that no
    /// tag and no other manifest leads to and that were pushed so many seconds ago. Only finds them out if `is_dry`.
    pub(in crate::distribution) fn collect(
        &mut self,
        is_young: impl Fn(&Digest) -> bool,
        untagged_age_s: Option<i64>,
        is_dry: bool,
    ) -> Answer<Garbage> {
        let change = self.change()?;
        let mut garbage = Garbage::default();
        if let Some(age_s) = untagged_age_s {
            garbage.manifests = forget_untagged(&change, age_s)?;
        }
        for (digest, bytes) in unused(&change)? {
            if is_young(&digest) {
                garbage.young.push((digest, bytes));
                continue;
            }
            change.execute(
                "DELETE FROM links WHERE digest = ?1 AND NOT EXISTS (
                     SELECT 1 FROM parts p WHERE p.repository = links.repository
                         AND p.digest = ?1 AND NOT p.is_manifest)",
                [digest.as_str()],
            )?;
            let gone = change.execute(
                "DELETE FROM blobs WHERE digest = ?1 AND NOT EXISTS (
                     SELECT 1 FROM links WHERE digest = ?1)",
                [digest.as_str()],
            )?;
            if gone > 0 {
                garbage.blobs.push((digest, bytes));
            }
        }
        if is_dry {
            change.rollback()?;
        } else {
            change.commit()?;
        }
        Ok(garbage)
    }

    /// Whether the blob is known.
    pub(in crate::distribution) fn knows(&self, digest: &Digest) -> Answer<bool> {
        self.blob(digest).map(|bytes| bytes.is_some())
    }
}

/// Blobs that some repository has and uses for no manifest.
fn unused(change: &Transaction<'_>) -> Answer<Vec<(Digest, u64)>> {
    let mut asked = change.prepare(
        "SELECT DISTINCT digest, bytes FROM blobs JOIN links l USING (digest) WHERE NOT EXISTS (
             SELECT 1 FROM parts p WHERE p.repository = l.repository AND p.digest = l.digest
                 AND NOT p.is_manifest)",
    )?;
    let rows = asked.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get(1)?)))?;
    rows.map(|row| row.map_err(Into::into).and_then(|(d, bytes)| Ok((Digest::parse(&d)?, bytes))))
        .collect()
}

/// Forgets manifests that nothing leads to, and then those that only they led to. What says something about another
/// manifest stays as long as that does.
fn forget_untagged(change: &Transaction<'_>, age_s: i64) -> Answer<usize> {
    let before = OffsetDateTime::now_utc().unix_timestamp().saturating_sub(age_s);
    let mut forgotten = 0;
    loop {
        let mut asked = change.prepare(
            "SELECT repository, digest FROM manifests m WHERE pushed_s <= ?1
                 AND NOT EXISTS (SELECT 1 FROM tags t
                     WHERE t.repository = m.repository AND t.digest = m.digest)
                 AND NOT EXISTS (SELECT 1 FROM parts p WHERE p.repository = m.repository
                     AND p.digest = m.digest AND p.is_manifest)
                 AND NOT EXISTS (SELECT 1 FROM manifests s
                     WHERE s.repository = m.repository AND s.digest = m.subject)",
        )?;
        let found = asked.query_map(params![before], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))
        })?;
        let found = found.collect::<Result<Vec<_>, _>>()?;
        if found.is_empty() {
            return Ok(forgotten);
        }
        for (repository, digest) in &found {
            forgotten += forget(change, repository, digest)?;
        }
    }
}
