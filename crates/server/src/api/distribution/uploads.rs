//! Uploads: from their beginning to a blob (end-4, 5, 6, 11, 13, 14).

use std::sync::Arc;

use axum::{
    body::{Body, BodyDataStream},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use pinnace_core::distribution::{ChunkFault, Digest, Repository, chunk};

use super::{Answer, Asked, CONTENT_DIGEST, Refusal, denoted, located, value};
use crate::distribution::{DistributionError, Fault, Upload, Writing};

/// The upload's id, which the reference implementation's clients look for.
const UPLOAD_ID: HeaderName = HeaderName::from_static("docker-upload-uuid");

/// POST `/v2/NAME/blobs/uploads/`: begins an upload, unless the blob comes with it or is there already.
pub(super) async fn begin(
    asked: Asked,
    repository: Repository,
    body: &mut BodyDataStream,
) -> Answer {
    if let Some(mounted) = asked.parameter("mount") {
        let digest = Digest::parse(&mounted).map_err(denoted)?;
        // A repository that can be none has no blobs.
        let from = asked.parameter("from").map(|from| Repository::parse(&from));
        if from != Some(None) && mount(&asked, &repository, &digest, from.flatten()).await? {
            return made(&repository, &digest);
        }
    }
    let digest = asked.parameter("digest").map(|digest| Digest::parse(&digest));
    let digest = digest.transpose().map_err(denoted)?;
    let owner = repository.clone();
    let upload = asked.blocking(move |store| store.begin(&owner)).await?;
    let Some(digest) = digest else {
        return standing(StatusCode::ACCEPTED, &repository, &upload);
    };
    let mut writing = upload.write(asked.store.clone()).await?;
    // Nobody knows where to go on with an upload that was never answered.
    if let Err(refusal) = append(&asked, &repository, &mut writing, body).await {
        writing.cancel();
        return Err(refusal);
    }
    writing.finish(repository.clone(), digest.clone()).await?;
    made(&repository, &digest)
}

async fn mount(
    asked: &Asked,
    repository: &Repository,
    digest: &Digest,
    from: Option<Repository>,
) -> Result<bool, Refusal> {
    let (repository, digest) = (repository.clone(), digest.clone());
    asked.blocking(move |store| store.mount(&repository, &digest, from.as_ref())).await
}

/// GET `/v2/NAME/blobs/uploads/ID`: where it stands.
pub(super) async fn stands(asked: Asked, repository: Repository, id: &str) -> Answer {
    let upload = asked.store.upload(&repository, id)?;
    standing(StatusCode::NO_CONTENT, &repository, &upload)
}

/// PATCH `/v2/NAME/blobs/uploads/ID`: a further piece.
pub(super) async fn add(
    asked: Asked,
    repository: Repository,
    id: &str,
    body: &mut BodyDataStream,
) -> Answer {
    let upload = asked.store.upload(&repository, id)?;
    let mut writing = upload.clone().write(asked.store.clone()).await?;
    append(&asked, &repository, &mut writing, body).await?;
    standing(StatusCode::ACCEPTED, &repository, &upload)
}

/// PUT `/v2/NAME/blobs/uploads/ID?digest=…`: the last piece, which may be empty or all.
pub(super) async fn finish(
    asked: Asked,
    repository: Repository,
    id: &str,
    body: &mut BodyDataStream,
) -> Answer {
    let digest = asked.parameter("digest").unwrap_or_default();
    let digest = Digest::parse(&digest).map_err(denoted)?;
    let upload = asked.store.upload(&repository, id)?;
    let mut writing = upload.write(asked.store.clone()).await?;
    append(&asked, &repository, &mut writing, body).await?;
    writing.finish(repository.clone(), digest.clone()).await?;
    made(&repository, &digest)
}

/// DELETE `/v2/NAME/blobs/uploads/ID`.
pub(super) async fn cancel(asked: Asked, repository: Repository, id: &str) -> Answer {
    let upload = asked.store.upload(&repository, id)?;
    upload.write(asked.store.clone()).await?.cancel();
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Adds a request's body to an upload, if it fits there.
async fn append(
    asked: &Asked,
    repository: &Repository,
    writing: &mut Writing,
    body: &mut BodyDataStream,
) -> Result<(), Refusal> {
    let (offset, bytes_max) = (writing.offset(), asked.store.blob_bytes_max());
    let range = asked.header(header::CONTENT_RANGE);
    let chunk = chunk(offset, range, asked.length(), bytes_max);
    let chunk = match chunk {
        Ok(chunk) => chunk,
        Err(ChunkFault::OutOfOrder) => {
            let refusal = Refusal::from(refused(ChunkFault::OutOfOrder, offset, bytes_max));
            let location = value(&path(repository, writing.upload()))?;
            return Err(refusal
                .with(header::LOCATION, location)
                .with(header::RANGE, stand(offset)?));
        }
        Err(fault) => return Err(refused(fault, offset, bytes_max).into()),
    };
    Ok(writing.append(body, chunk).await?)
}

fn refused(fault: ChunkFault, offset: u64, bytes_max: u64) -> DistributionError {
    match fault {
        ChunkFault::Form => DistributionError::new(
            Fault::UploadInvalid,
            "Content-Range is not FIRST-LAST, such as 0-1023",
        ),
        ChunkFault::OutOfOrder => DistributionError::new(
            Fault::OutOfOrder,
            format!("the upload has {offset} bytes; go on with byte {offset}"),
        ),
        ChunkFault::Length => DistributionError::new(
            Fault::SizeInvalid,
            "Content-Range and Content-Length say different numbers of bytes",
        ),
        ChunkFault::TooLarge => DistributionError::new(
            Fault::TooLarge,
            format!("a blob has at most {bytes_max} bytes (--image-bytes-max)"),
        ),
    }
}

/// The answer that says how far an upload is.
fn standing(status: StatusCode, repository: &Repository, upload: &Arc<Upload>) -> Answer {
    let mut headers = HeaderMap::new();
    headers.insert(header::LOCATION, value(&path(repository, upload))?);
    headers.insert(header::RANGE, stand(upload.offset())?);
    headers.insert(UPLOAD_ID, value(&upload.id().to_string())?);
    if status != StatusCode::NO_CONTENT {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
    }
    Ok((status, headers, Body::empty()).into_response())
}

/// The bytes that an upload has. There is no way to say none, and this is how everybody does.
fn stand(offset: u64) -> Result<HeaderValue, Refusal> {
    value(&format!("0-{}", offset.saturating_sub(1)))
}

fn path(repository: &Repository, upload: &Upload) -> String {
    format!("/v2/{repository}/blobs/uploads/{}", upload.id())
}

/// The answer that says that a blob is there.
fn made(repository: &Repository, digest: &Digest) -> Result<Response, Refusal> {
    let mut response = located(StatusCode::CREATED, &format!("/v2/{repository}/blobs/{digest}"))?;
    response.headers_mut().insert(CONTENT_DIGEST, value(digest.as_str())?);
    Ok(response)
}
