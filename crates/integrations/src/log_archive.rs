//! The log's archive in object storage.
//!
//! The library that speaks to the storage cannot send Object Lock headers of its own with an object, so retention is the
//! bucket's default; whether it took hold is read back from a stored object (`x-amz-object-lock-mode` and
//! `-retain-until-date` of `HeadObject`).

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, future::BoxFuture};
use http::Method;
use muster_control::{
    audit::{ArchiveError, Archived, LogArchive, Retention},
    policy::{ArtifactError, ArtifactStore as _, Put},
};
use object_store::{ObjectStoreExt, PutPayload, aws::AmazonS3, signer::Signer};

use crate::artifacts::{ObjectArtifacts, OpenError, Opened};

/// How long the signed question about one object is valid.
const QUESTION_TIME: Duration = Duration::from_secs(60);
const REQUEST_TIME: Duration = Duration::from_secs(20);

/// Object storage that holds logs under a prefix.
#[derive(Debug)]
pub struct ObjectArchive {
    objects: ObjectArtifacts,
    /// Where Object Lock exists, and who asks about it.
    s3: Option<(Arc<AmazonS3>, reqwest::Client)>,
}

impl ObjectArchive {
    /// Opens what [`ObjectArtifacts::open`] opens. Nothing is asked of the storage yet.
    pub fn open(
        url: &str,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<ObjectArchive, OpenError> {
        // S3 takes an object into retention only with a checksum.
        let checksum = ("AWS_CHECKSUM_ALGORITHM".to_owned(), "SHA256".to_owned());
        let environment = std::iter::once(checksum).chain(environment);
        let Opened { objects, s3 } = ObjectArtifacts::open_with_s3(url, environment)?;
        let s3 = match s3 {
            None => None,
            Some(s3) => {
                let client = reqwest::Client::builder()
                    .timeout(REQUEST_TIME)
                    .redirect(reqwest::redirect::Policy::none())
                    .build()
                    .map_err(|_| OpenError::Client)?;
                Some((s3, client))
            }
        };
        Ok(ObjectArchive { objects, s3 })
    }

    fn failed(&self, error: ArtifactError) -> ArchiveError {
        match error {
            ArtifactError::Unavailable(why) => ArchiveError(why),
            ArtifactError::TooLarge => {
                ArchiveError(format!("{}: an object is too large", self.objects.place()))
            }
        }
    }

    async fn overwrite(&self, name: &str, bytes: Bytes) -> Result<(), ArchiveError> {
        let path = self.objects.path(name);
        let put = self
            .objects
            .store()
            .put(&path, PutPayload::from_bytes(bytes))
            .await;
        put.map(drop)
            .map_err(|error| self.failed(self.objects.failed(&error)))
    }

    async fn behind(&self, folder: &str, name: &str) -> Result<Option<String>, ArchiveError> {
        let (folder, offset) = (self.objects.path(folder), self.objects.path(name));
        let mut names = self.objects.store().list_with_offset(Some(&folder), &offset);
        // Some storages list in no order at all: any name will do.
        match names.next().await {
            None => Ok(None),
            Some(Ok(found)) => Ok(found.location.filename().map(str::to_owned)),
            Some(Err(object_store::Error::NotFound { .. })) => Ok(None),
            Some(Err(error)) => Err(self.failed(self.objects.failed(&error))),
        }
    }

    async fn ask_retention(&self, name: &str) -> Result<Retention, ArchiveError> {
        let Some((s3, client)) = &self.s3 else {
            return Ok(Retention::Unknown);
        };
        let failed = |what: &str| ArchiveError(format!("{}: {what}", self.objects.place()));
        let url = s3
            .signed_url(Method::HEAD, &self.objects.path(name), QUESTION_TIME)
            .await
            .map_err(|error| self.failed(self.objects.failed(&error)))?;
        // The URL carries a signature: it is in no message.
        let answer = client
            .head(url)
            .send()
            .await
            .map_err(|_| failed("it does not answer"))?;
        if !answer.status().is_success() {
            return Err(failed(&format!("it answers {} about an object", answer.status())));
        }
        let header = |name: &str| {
            let value = answer.headers().get(name)?.to_str().ok()?;
            Some(value.to_owned())
        };
        Ok(
            match (
                header("x-amz-object-lock-mode"),
                header("x-amz-object-lock-retain-until-date"),
            ) {
                (Some(mode), Some(until)) => Retention::Until { mode, until },
                _ => Retention::Unprotected,
            },
        )
    }
}

impl LogArchive for ObjectArchive {
    fn place(&self) -> &str {
        self.objects.place()
    }

    fn put_once<'a>(&'a self, name: &'a str, bytes: Bytes) -> BoxFuture<'a, Result<Archived, ArchiveError>> {
        let stored = self.objects.put(name, bytes).map(|stored| match stored {
            Ok(Put::Stored) => Ok(Archived::Stored),
            Ok(Put::Present) => Ok(Archived::Present),
            Err(error) => Err(self.failed(error)),
        });
        stored.boxed()
    }

    fn put<'a>(&'a self, name: &'a str, bytes: Bytes) -> BoxFuture<'a, Result<(), ArchiveError>> {
        self.overwrite(name, bytes).boxed()
    }

    fn get<'a>(
        &'a self,
        name: &'a str,
        bytes_max: usize,
    ) -> BoxFuture<'a, Result<Option<Bytes>, ArchiveError>> {
        let read = self.objects.read(name, bytes_max);
        read.map(|read| read.map_err(|error| self.failed(error))).boxed()
    }

    fn any_behind<'a>(
        &'a self,
        folder: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Option<String>, ArchiveError>> {
        self.behind(folder, name).boxed()
    }

    fn retention<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Retention, ArchiveError>> {
        self.ask_retention(name).boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_folder_is_an_archive_too() {
        let at = tempfile::tempdir().expect("a folder");
        let url = url::Url::from_file_path(at.path()).expect("the folder has an absolute path");
        let archive = ObjectArchive::open(url.as_str(), []).expect("a folder can be opened");
        let put =
            |name: &'static str, bytes: &'static [u8]| archive.put_once(name, Bytes::from_static(bytes));
        assert_eq!(put("t/checkpoints/05", b"five").await, Ok(Archived::Stored));
        assert_eq!(put("t/checkpoints/05", b"other").await, Ok(Archived::Present));
        assert_eq!(
            archive.put("t/checkpoint", Bytes::from_static(b"one")).await,
            Ok(())
        );
        assert_eq!(
            archive.put("t/checkpoint", Bytes::from_static(b"two")).await,
            Ok(())
        );
        assert_eq!(
            archive.get("t/checkpoint", 9).await,
            Ok(Some(Bytes::from_static(b"two")))
        );
        let behind = |name: &'static str| archive.any_behind("t/checkpoints", name);
        assert_eq!(behind("t/checkpoints/04").await, Ok(Some("05".to_owned())));
        assert_eq!(behind("t/checkpoints/05").await, Ok(None));
        assert_eq!(
            archive.any_behind("u/checkpoints", "u/checkpoints/1").await,
            Ok(None)
        );
        assert_eq!(
            archive.retention("t/checkpoints/05").await,
            Ok(Retention::Unknown)
        );
    }
}
