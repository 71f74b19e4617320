//! The changes that a store can be asked for, and what each does to the tables.

use pinnace_core::{FunctionRef, Namespace, wire::Map};
use rusqlite::{Connection, params};

use super::Stored;

/// One change, durable or not made.
#[derive(Debug)]
pub(super) enum Change {
    Put(FunctionRef, Box<Stored>),
    Scale(FunctionRef, u32),
    Remove(FunctionRef),
    PutNamespace(String, Namespace),
    RemoveNamespace(String),
    PutSecret { namespace: String, name: String, sealed: Vec<u8> },
    RemoveSecret { namespace: String, name: String },
}

/// Makes a change, within a transaction.
pub(super) fn apply(connection: &Connection, change: &Change) -> rusqlite::Result<()> {
    match change {
        Change::Put(id, stored) => put(connection, id, stored)?,
        Change::Scale(id, replicas) => connection
            .prepare_cached(
                "UPDATE functions SET replicas = ?3 WHERE name = ?1 AND namespace = ?2",
            )?
            .execute(params![id.name(), id.namespace(), replicas])?,
        Change::Remove(id) => connection
            .prepare_cached("DELETE FROM functions WHERE name = ?1 AND namespace = ?2")?
            .execute(params![id.name(), id.namespace()])?,
        Change::PutNamespace(name, namespace) => connection
            .prepare_cached(
                "INSERT INTO namespaces (name, labels, annotations) VALUES (?1, ?2, ?3)
                 ON CONFLICT (name) DO UPDATE SET labels = ?2, annotations = ?3",
            )?
            .execute(params![name, text(&namespace.labels)?, text(&namespace.annotations)?])?,
        Change::RemoveNamespace(name) => {
            connection
                .prepare_cached("DELETE FROM secrets WHERE namespace = ?1")?
                .execute([name])?;
            connection.prepare_cached("DELETE FROM namespaces WHERE name = ?1")?.execute([name])?
        }
        Change::PutSecret { namespace, name, sealed } => connection
            .prepare_cached(
                "INSERT INTO secrets (namespace, name, sealed) VALUES (?1, ?2, ?3)
                 ON CONFLICT (namespace, name) DO UPDATE SET sealed = ?3",
            )?
            .execute(params![namespace, name, sealed])?,
        Change::RemoveSecret { namespace, name } => connection
            .prepare_cached("DELETE FROM secrets WHERE namespace = ?1 AND name = ?2")?
            .execute(params![namespace, name])?,
    };
    Ok(())
}

fn put(connection: &Connection, id: &FunctionRef, stored: &Stored) -> rusqlite::Result<usize> {
    let deployment = serde_json::to_string(&stored.deployment)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
    connection
        .prepare_cached(
            "INSERT INTO functions (name, namespace, deployment, revision, replicas, created_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT (name, namespace) DO UPDATE SET deployment = ?3, revision = ?4, replicas = ?5",
        )?
        .execute(params![
            id.name(),
            id.namespace(),
            deployment,
            stored.revision,
            stored.replicas,
            stored.created_at,
        ])
}

fn text(map: &Map) -> rusqlite::Result<String> {
    serde_json::to_string(map)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))
}
