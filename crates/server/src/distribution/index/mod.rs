//! What the registry has, in SQLite: which repository has which blobs, manifests and tags.
//!
//! One connection, one question or change at a time. Whoever holds it may also move files: what the database says of
//! a blob and where its file lies change together, seen from everybody else.

mod garbage;
mod schema;

use std::path::Path;

use anyhow::Context;
use pinnace_core::distribution::{Digest, Manifest, Page, Part, Repository, Tag, Wanted};
use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, TransactionBehavior, params};
use time::OffsetDateTime;

use super::error::{DistributionError, Fault};

type Answer<T> = Result<T, DistributionError>;

/// The database.
#[derive(Debug)]
pub(super) struct Index(Connection);

/// A manifest as it was pushed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredManifest {
    /// Its digest.
    pub digest: Digest,
    /// What it is.
    pub media_type: String,
    /// Its bytes.
    pub content: Vec<u8>,
}

/// A manifest that is to be kept.
pub(super) struct NewManifest<'a> {
    pub(super) digest: &'a Digest,
    pub(super) manifest: &'a Manifest,
    pub(super) content: &'a [u8],
    pub(super) tags: &'a [Tag],
}

/// Some of a list, and whether there is more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listed {
    /// The entries.
    pub entries: Vec<String>,
    /// After which entry the next page begins, if there is one.
    pub next: Option<String>,
}

/// What a tag stands for, or a manifest that no tag and no other manifest leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The repository.
    pub repository: String,
    /// The tag, if there is one.
    pub tag: Option<String>,
    /// The manifest.
    pub digest: String,
    /// What it is.
    pub media_type: String,
    /// Bytes of the manifest and of all that it is made of.
    pub bytes: u64,
    /// When it was pushed first, in seconds of Unix time.
    pub pushed_s: i64,
}

impl Index {
    /// Opens the database, or makes it.
    ///
    /// # Errors
    /// It cannot be opened, or is another one.
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        let opened = || {
            let connection = Connection::open(path)?;
            schema::prepare(&connection)?;
            anyhow::Ok(Self(connection))
        };
        opened().with_context(|| format!("the registry's database {}", path.display()))
    }

    fn change(&mut self) -> Answer<Transaction<'_>> {
        Ok(self.0.transaction_with_behavior(TransactionBehavior::Immediate)?)
    }

    /// Bytes of a blob, whichever repository has it.
    pub(super) fn blob(&self, digest: &Digest) -> Answer<Option<u64>> {
        let mut asked = self.0.prepare_cached("SELECT bytes FROM blobs WHERE digest = ?1")?;
        Ok(asked.query_row([digest.as_str()], |row| row.get(0)).optional()?)
    }

    /// Bytes of a blob that a repository has.
    pub(super) fn blob_of(&self, repository: &Repository, digest: &Digest) -> Answer<Option<u64>> {
        let mut asked = self.0.prepare_cached(
            "SELECT bytes FROM blobs JOIN links USING (digest) WHERE repository = ?1 AND digest = ?2",
        )?;
        let names = [repository.as_str(), digest.as_str()];
        Ok(asked.query_row(names, |row| row.get(0)).optional()?)
    }

    /// Gives a repository a blob, whose file is in its place.
    pub(super) fn add_blob(
        &mut self,
        repository: &Repository,
        digest: &Digest,
        bytes: u64,
    ) -> Answer<()> {
        let change = self.change()?;
        change.execute(
            "INSERT OR IGNORE INTO blobs (digest, bytes) VALUES (?1, ?2)",
            params![digest.as_str(), bytes],
        )?;
        change.execute(
            "INSERT OR IGNORE INTO links (repository, digest) VALUES (?1, ?2)",
            [repository.as_str(), digest.as_str()],
        )?;
        Ok(change.commit()?)
    }

    /// Takes a blob from a repository. True if no other has it, so that its file may go.
    pub(super) fn remove_blob(&mut self, repository: &Repository, digest: &Digest) -> Answer<bool> {
        let names = [repository.as_str(), digest.as_str()];
        let change = self.change()?;
        let user: Option<String> = change
            .query_row(
                "SELECT manifest FROM parts WHERE repository = ?1 AND digest = ?2 AND NOT is_manifest",
                names,
                |row| row.get(0),
            )
            .optional()?;
        if let Some(user) = user {
            let text = format!("blob {digest} is a part of the manifest {user}: delete that first");
            return Err(DistributionError::new(Fault::InUse, text));
        }
        let removed =
            change.execute("DELETE FROM links WHERE repository = ?1 AND digest = ?2", names)?;
        if removed == 0 {
            return Err(DistributionError::no_blob(repository, digest));
        }
        let is_last = change.execute(
            "DELETE FROM blobs WHERE digest = ?1 AND NOT EXISTS (
                 SELECT 1 FROM links WHERE digest = ?1)",
            [digest.as_str()],
        )? > 0;
        change.commit()?;
        Ok(is_last)
    }

    /// Keeps a manifest under its tags, if all that it is made of is there.
    pub(super) fn put_manifest(
        &mut self,
        repository: &Repository,
        new: &NewManifest<'_>,
    ) -> Answer<()> {
        let NewManifest { digest, manifest, content, tags } = new;
        let change = self.change()?;
        let subject = manifest.subject.as_ref();
        change.execute(
            "INSERT INTO manifests
                 (repository, digest, media_type, pushed_s, subject, artifact_type, referrer, content)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
             ON CONFLICT (repository, digest) DO UPDATE SET media_type = excluded.media_type,
                 pushed_s = excluded.pushed_s, artifact_type = excluded.artifact_type,
                 referrer = excluded.referrer",
            params![
                repository.as_str(),
                digest.as_str(),
                manifest.media_type,
                OffsetDateTime::now_utc().unix_timestamp(),
                subject.map(Digest::as_str),
                manifest.artifact_type,
                subject.map(|_| manifest.referrer(digest, content.len())),
                content,
            ],
        )?;
        for part in &manifest.parts {
            add_part(&change, repository, digest, part)?;
        }
        for tag in *tags {
            change.execute(
                "INSERT INTO tags (repository, tag, digest) VALUES (?1, ?2, ?3)
                 ON CONFLICT (repository, tag) DO UPDATE SET digest = excluded.digest",
                [repository.as_str(), tag.as_str(), digest.as_str()],
            )?;
        }
        Ok(change.commit()?)
    }

    /// A repository's manifest.
    pub(super) fn manifest(
        &self,
        repository: &Repository,
        wanted: &Wanted,
    ) -> Answer<Option<StoredManifest>> {
        let (sql, word) = match wanted {
            Wanted::Digest(digest) => (
                "SELECT digest, media_type, content FROM manifests
                 WHERE repository = ?1 AND digest = ?2",
                digest.as_str(),
            ),
            Wanted::Tag(tag) => (
                "SELECT m.digest, m.media_type, m.content FROM tags t
                 JOIN manifests m ON m.repository = t.repository AND m.digest = t.digest
                 WHERE t.repository = ?1 AND t.tag = ?2",
                tag.as_str(),
            ),
        };
        let mut asked = self.0.prepare_cached(sql)?;
        let read = |row: &Row<'_>| Ok((row.get::<_, String>(0)?, row.get(1)?, row.get(2)?));
        let found = asked.query_row([repository.as_str(), word], read).optional()?;
        let Some((digest, media_type, content)) = found else { return Ok(None) };
        Ok(Some(StoredManifest { digest: Digest::parse(&digest)?, media_type, content }))
    }

    /// Forgets a tag, or a manifest with all its tags.
    pub(super) fn remove_manifest(
        &mut self,
        repository: &Repository,
        wanted: &Wanted,
    ) -> Answer<()> {
        let change = self.change()?;
        let removed = match wanted {
            Wanted::Tag(tag) => change.execute(
                "DELETE FROM tags WHERE repository = ?1 AND tag = ?2",
                [repository.as_str(), tag.as_str()],
            )?,
            Wanted::Digest(digest) => forget(&change, repository.as_str(), digest.as_str())?,
        };
        if removed == 0 {
            return Err(DistributionError::no_manifest(repository, wanted));
        }
        Ok(change.commit()?)
    }

    /// Forgets what a reference stands for: its tag, and the manifest unless something else leads to it.
    pub(super) fn remove_reference(
        &mut self,
        repository: &Repository,
        wanted: &Wanted,
    ) -> Answer<()> {
        let Wanted::Tag(tag) = wanted else { return self.remove_manifest(repository, wanted) };
        let change = self.change()?;
        let names = [repository.as_str(), tag.as_str()];
        let sql = "DELETE FROM tags WHERE repository = ?1 AND tag = ?2 RETURNING digest";
        let digest: Option<String> = change.query_row(sql, names, |row| row.get(0)).optional()?;
        let digest = digest.ok_or_else(|| DistributionError::no_manifest(repository, wanted))?;
        let is_led_to: bool = change.query_row(
            "SELECT EXISTS (SELECT 1 FROM tags WHERE repository = ?1 AND digest = ?2)
                 OR EXISTS (SELECT 1 FROM parts WHERE repository = ?1 AND digest = ?2 AND is_manifest)",
            [repository.as_str(), &digest],
            |row| row.get(0),
        )?;
        if !is_led_to {
            forget(&change, repository.as_str(), &digest)?;
        }
        Ok(change.commit()?)
    }

    /// Whether a repository has anything.
    pub(super) fn has_repository(&self, repository: &Repository) -> Answer<bool> {
        let mut asked = self.0.prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM links WHERE repository = ?1)
                 OR EXISTS (SELECT 1 FROM manifests WHERE repository = ?1)",
        )?;
        Ok(asked.query_row([repository.as_str()], |row| row.get(0))?)
    }

    /// A repository's tags, sorted by their bytes.
    pub(super) fn tags(&self, repository: &Repository, page: &Page) -> Answer<Listed> {
        let mut asked = self.0.prepare_cached(
            "SELECT tag FROM tags WHERE repository = ?1 AND tag > ?2 ORDER BY tag LIMIT ?3",
        )?;
        let last = page.last.as_deref().unwrap_or_default();
        let names = params![repository.as_str(), last, page.entries_max + 1];
        let tags = asked.query_map(names, |row| row.get(0))?;
        Ok(Listed::of(tags.collect::<Result<_, _>>()?, page.entries_max))
    }

    /// Repositories that have manifests, sorted by their bytes.
    pub(super) fn repositories(&self, page: &Page) -> Answer<Listed> {
        let mut asked =
            self.0.prepare_cached("SELECT min(repository) FROM manifests WHERE repository > ?1")?;
        let mut last = page.last.clone().unwrap_or_default();
        let mut entries = Vec::new();
        // A step of the database's index for each, however many manifests they have.
        while entries.len() <= page.entries_max {
            let next: Option<String> = asked.query_row([&last], |row| row.get(0))?;
            let Some(next) = next else { break };
            last.clone_from(&next);
            entries.push(next);
        }
        Ok(Listed::of(entries, page.entries_max))
    }

    /// Manifests that say something about a digest, each as JSON, sorted by their own digests; of one type, if one is
    /// named. Ends with the page, or when it has so many bytes.
    pub(super) fn referrers(
        &self,
        repository: &Repository,
        subject: &Digest,
        artifact_type: Option<&str>,
        page: &Page,
        bytes_max: usize,
    ) -> Answer<Listed> {
        let mut asked = self.0.prepare_cached(
            "SELECT digest, referrer FROM manifests WHERE repository = ?1 AND subject = ?2
                 AND digest > ?3 AND (?4 IS NULL OR artifact_type = ?4) ORDER BY digest",
        )?;
        let last = page.last.as_deref().unwrap_or_default();
        let mut rows =
            asked.query(params![repository.as_str(), subject.as_str(), last, artifact_type])?;
        let (mut listed, mut bytes, mut last) = (Listed::default(), 0, None);
        while let Some(row) = rows.next()? {
            if listed.entries.len() >= page.entries_max || bytes > bytes_max {
                listed.next = last;
                break;
            }
            let referrer: String = row.get(1)?;
            bytes += referrer.len();
            listed.entries.push(referrer);
            last = Some(row.get(0)?);
        }
        Ok(listed)
    }

    /// All tags, and manifests that nothing leads to; `entries_max` of them, and whether there are more.
    pub(super) fn held(&self, entries_max: usize) -> Answer<(Vec<Held>, bool)> {
        let mut asked = self.0.prepare(
            "SELECT m.repository, t.tag, m.digest, m.media_type, m.pushed_s FROM manifests m
                 LEFT JOIN tags t ON t.repository = m.repository AND t.digest = m.digest
             WHERE t.tag IS NOT NULL OR (m.subject IS NULL AND NOT EXISTS (
                 SELECT 1 FROM parts p
                 WHERE p.repository = m.repository AND p.digest = m.digest AND p.is_manifest))
             ORDER BY m.repository, t.tag IS NULL, t.tag, m.digest LIMIT ?1",
        )?;
        let rows = asked.query_map([entries_max + 1], |row| {
            Ok(Held {
                repository: row.get(0)?,
                tag: row.get(1)?,
                digest: row.get(2)?,
                media_type: row.get(3)?,
                bytes: 0,
                pushed_s: row.get(4)?,
            })
        })?;
        let mut held = rows.collect::<Result<Vec<_>, _>>()?;
        let has_more = held.len() > entries_max;
        held.truncate(entries_max);
        for one in &mut held {
            one.bytes = self.bytes_of(&one.repository, &one.digest)?;
        }
        Ok((held, has_more))
    }

    /// Bytes of a manifest and of all that it is made of, none counted twice.
    fn bytes_of(&self, repository: &str, digest: &str) -> Answer<u64> {
        let mut asked = self.0.prepare_cached(
            "WITH RECURSIVE reached (digest, is_manifest) AS (
                 VALUES (?2, TRUE)
                 UNION
                 SELECT p.digest, p.is_manifest FROM parts p JOIN reached r
                     ON p.repository = ?1 AND p.manifest = r.digest AND r.is_manifest)
             SELECT coalesce((SELECT sum(bytes) FROM blobs
                     WHERE digest IN (SELECT digest FROM reached WHERE NOT is_manifest)), 0)
                 + coalesce((SELECT sum(length(content)) FROM manifests WHERE repository = ?1
                     AND digest IN (SELECT digest FROM reached WHERE is_manifest)), 0)",
        )?;
        Ok(asked.query_row([repository, digest], |row| row.get(0))?)
    }
}

impl Listed {
    /// The first of some entries, one more than a page has.
    fn of(mut entries: Vec<String>, entries_max: usize) -> Self {
        let has_more = entries.len() > entries_max;
        entries.truncate(entries_max);
        let next = entries.last().filter(|_| has_more).cloned();
        Self { entries, next }
    }
}

/// Notes what a manifest is made of, which must be there.
fn add_part(
    change: &Transaction<'_>,
    repository: &Repository,
    manifest: &Digest,
    part: &Part,
) -> Answer<()> {
    let (sql, kind) = match part.is_manifest {
        true => ("SELECT 1 FROM manifests WHERE repository = ?1 AND digest = ?2", "manifest"),
        false => ("SELECT 1 FROM links WHERE repository = ?1 AND digest = ?2", "blob"),
    };
    let names = [repository.as_str(), part.digest.as_str()];
    if !change.prepare_cached(sql)?.exists(names)? {
        let text = format!(
            "the manifest is made of the {kind} {}, which repository {repository} does not have: push that first",
            part.digest
        );
        return Err(DistributionError::new(Fault::ManifestBlobUnknown, text));
    }
    change
        .prepare_cached(
            "INSERT OR IGNORE INTO parts (repository, manifest, digest, is_manifest)
             VALUES (?1, ?2, ?3, ?4)",
        )?
        .execute(params![
            repository.as_str(),
            manifest.as_str(),
            part.digest.as_str(),
            part.is_manifest
        ])?;
    Ok(())
}

/// Forgets a manifest, its tags and what it is made of; answers how many there were.
fn forget(change: &Transaction<'_>, repository: &str, digest: &str) -> rusqlite::Result<usize> {
    let names = [repository, digest];
    change.execute("DELETE FROM tags WHERE repository = ?1 AND digest = ?2", names)?;
    change.execute("DELETE FROM parts WHERE repository = ?1 AND manifest = ?2", names)?;
    change.execute("DELETE FROM manifests WHERE repository = ?1 AND digest = ?2", names)
}
