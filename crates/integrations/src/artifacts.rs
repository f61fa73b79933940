//! Policy bundles in object storage: Amazon S3 and what speaks its protocol, Azure Blob Storage, Google Cloud Storage, or
//! a folder.
//!
//! An object is written with "only if it is not there" (RFC 9110 section 13.1.2, `If-None-Match: *`; generation 0 on Google
//! Cloud Storage), so that whoever holds these credentials in the server cannot replace one through it. Retention that
//! even an administrator of the bucket cannot end (S3 Object Lock) is set on the bucket.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, future::BoxFuture};
use muster_control::policy::{ArtifactError, ArtifactStore, Put};
use object_store::{
    BackoffConfig, ClientConfigKey, Error, ObjectStore, ObjectStoreExt, ObjectStoreScheme, PutMode,
    PutOptions, PutPayload, RetryConfig,
    aws::{AmazonS3, AmazonS3Builder},
    azure::MicrosoftAzureBuilder,
    gcp::GoogleCloudStorageBuilder,
    local::LocalFileSystem,
    path::Path,
};
use url::Url;

/// How long one request to the storage may take.
const REQUEST_TIMEOUT: &str = "20s";
/// How long a connection to the storage may take.
const CONNECT_TIMEOUT: &str = "5s";
/// How long an operation is repeated before it fails; the caller repeats it later.
const RETRY_TIMEOUT: Duration = Duration::from_secs(25);
const RETRIES_MAX: usize = 3;

/// Object storage that holds bundles under a prefix.
#[derive(Debug)]
pub struct ObjectArtifacts {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    /// For messages: without credentials, which a URL must not hold.
    place: String,
}

/// Why object storage cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(
        "{0:?} is not a URL; write s3://bucket/prefix, az://container/prefix, gs://bucket/prefix or file:///folder"
    )]
    Url(String),
    #[error("the URL holds a user name or a password; give credentials in the environment")]
    Credentials,
    #[error("no client for the storage can be made")]
    Client,
    #[error("{0}")]
    Store(#[from] Error),
}

/// Object storage, and the same once more as S3 where it is that.
pub(crate) struct Opened {
    pub objects: ObjectArtifacts,
    pub s3: Option<Arc<AmazonS3>>,
}

impl ObjectArtifacts {
    /// Opens `s3://bucket/prefix`, `az://container/prefix`, `gs://bucket/prefix` or `file:///folder`. Options are the
    /// variables that the providers' own tools read, such as `AWS_ACCESS_KEY_ID`, `AZURE_STORAGE_ACCOUNT_NAME` or
    /// `GOOGLE_SERVICE_ACCOUNT`; others are ignored. Nothing is asked of the storage yet.
    pub fn open(
        url: &str,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<ObjectArtifacts, OpenError> {
        ObjectArtifacts::open_with_s3(url, environment).map(|opened| opened.objects)
    }

    /// As `open`, with what only S3 can do.
    pub(crate) fn open_with_s3(
        url: &str,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Opened, OpenError> {
        let parsed = Url::parse(url).map_err(|_| OpenError::Url(url.chars().take(128).collect()))?;
        if !parsed.username().is_empty() || parsed.password().is_some() {
            return Err(OpenError::Credentials);
        }
        let limits = [
            (ClientConfigKey::Timeout, REQUEST_TIMEOUT),
            (ClientConfigKey::ConnectTimeout, CONNECT_TIMEOUT),
        ];
        let limits = limits.map(|(key, value)| (key.as_ref().to_owned(), value.to_owned()));
        let ours = ["AWS_", "AZURE_", "GOOGLE_"];
        let options = environment
            .into_iter()
            .filter(|(name, _)| ours.iter().any(|prefix| name.starts_with(prefix)))
            .map(|(name, value)| (name.to_ascii_lowercase(), value));
        let options: Vec<(String, String)> = limits.into_iter().chain(options).collect();
        let (store, prefix, s3) = open_store(&parsed, &options)?;
        let objects = ObjectArtifacts {
            store,
            prefix,
            place: url.to_owned(),
        };
        Ok(Opened { objects, s3 })
    }

    pub(crate) fn store(&self) -> &dyn ObjectStore {
        self.store.as_ref()
    }

    pub(crate) fn path(&self, name: &str) -> Path {
        name.split('/')
            .fold(self.prefix.clone(), |path, part| path.join(part))
    }

    pub(crate) async fn put(&self, name: &str, bytes: Bytes) -> Result<Put, ArtifactError> {
        let options = PutOptions {
            mode: PutMode::Create,
            ..PutOptions::default()
        };
        match self
            .store
            .put_opts(&self.path(name), PutPayload::from_bytes(bytes), options)
            .await
        {
            Ok(_) => Ok(Put::Stored),
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => Ok(Put::Present),
            Err(error) => Err(self.failed(&error)),
        }
    }

    pub(crate) async fn read(&self, name: &str, bytes_max: usize) -> Result<Option<Bytes>, ArtifactError> {
        let found = match self.store.get(&self.path(name)).await {
            Ok(found) => found,
            Err(Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(self.failed(&error)),
        };
        if found.meta.size > bytes_max as u64 {
            return Err(ArtifactError::TooLarge);
        }
        let (mut content, mut stream) = (Vec::new(), found.into_stream());
        while let Some(part) = stream.next().await {
            let part = part.map_err(|error| self.failed(&error))?;
            if content.len() + part.len() > bytes_max {
                return Err(ArtifactError::TooLarge);
            }
            content.extend_from_slice(&part);
        }
        Ok(Some(content.into()))
    }

    async fn delete(&self, name: &str) -> Result<(), ArtifactError> {
        use object_store::ObjectStoreExt as _;
        match self.store.delete(&self.path(name)).await {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.failed(&error)),
        }
    }

    /// The storage's own message may repeat a request with its signature, so only its kind is told on.
    pub(crate) fn failed(&self, error: &Error) -> ArtifactError {
        let what = match error {
            Error::PermissionDenied { .. } => "it refuses these credentials to do this",
            Error::Unauthenticated { .. } => "it does not accept the credentials",
            Error::NotSupported { .. } | Error::NotImplemented { .. } => {
                "it cannot write an object only once"
            }
            Error::NotFound { .. } => "there is no such bucket or container",
            _ => "it does not answer as it should",
        };
        ArtifactError::Unavailable(format!("{}: {what}", self.place))
    }
}

impl ArtifactStore for ObjectArtifacts {
    fn place(&self) -> &str {
        &self.place
    }

    fn put_once<'a>(&'a self, name: &'a str, bytes: Bytes) -> BoxFuture<'a, Result<Put, ArtifactError>> {
        self.put(name, bytes).boxed()
    }

    fn get<'a>(
        &'a self,
        name: &'a str,
        bytes_max: usize,
    ) -> BoxFuture<'a, Result<Option<Bytes>, ArtifactError>> {
        self.read(name, bytes_max).boxed()
    }

    fn remove<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<(), ArtifactError>> {
        self.delete(name).boxed()
    }
}

macro_rules! built {
    ($builder:ty, $url:expr, $options:expr) => {{
        let builder = <$builder>::new().with_url($url.as_str()).with_retry(retries());
        let builder = $options
            .iter()
            .fold(builder, |builder, (key, value)| match key.parse() {
                Ok(key) => builder.with_config(key, value),
                Err(_) => builder,
            });
        Arc::new(builder.build()?)
    }};
}

type Store = (Arc<dyn ObjectStore>, Path, Option<Arc<AmazonS3>>);

fn open_store(url: &Url, options: &[(String, String)]) -> Result<Store, OpenError> {
    let (scheme, prefix) = ObjectStoreScheme::parse(url).map_err(Error::from)?;
    let prefix = Path::parse(prefix).map_err(Error::from)?;
    let store: Arc<dyn ObjectStore> = match scheme {
        ObjectStoreScheme::Local => Arc::new(LocalFileSystem::new()),
        ObjectStoreScheme::AmazonS3 => {
            let s3 = built!(AmazonS3Builder, url, options);
            return Ok((Arc::clone(&s3) as Arc<dyn ObjectStore>, prefix, Some(s3)));
        }
        ObjectStoreScheme::GoogleCloudStorage => built!(GoogleCloudStorageBuilder, url, options),
        ObjectStoreScheme::MicrosoftAzure => built!(MicrosoftAzureBuilder, url, options),
        _ => return Err(OpenError::Url(url.as_str().chars().take(128).collect())),
    };
    Ok((store, prefix, None))
}

fn retries() -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig::default(),
        max_retries: RETRIES_MAX,
        retry_timeout: RETRY_TIMEOUT,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(at: &std::path::Path) -> ObjectArtifacts {
        let url = Url::from_file_path(at).expect("the folder has an absolute path");
        ObjectArtifacts::open(url.as_str(), []).expect("a folder can be opened")
    }

    #[tokio::test]
    async fn an_artifact_is_written_once_and_read_back() {
        let at = tempfile::tempdir().expect("a folder");
        let store = folder(at.path());
        let put = |bytes: &'static [u8]| store.put_once("bundles/a.zip", Bytes::from_static(bytes));
        assert_eq!(put(b"one").await, Ok(Put::Stored));
        assert_eq!(put(b"two").await, Ok(Put::Present));
        assert_eq!(
            store.get("bundles/a.zip", 16).await,
            Ok(Some(Bytes::from_static(b"one")))
        );
        assert_eq!(store.get("bundles/b.zip", 16).await, Ok(None));
    }

    #[tokio::test]
    async fn an_artifact_past_the_limit_is_not_read() {
        let at = tempfile::tempdir().expect("a folder");
        let store = folder(at.path());
        assert_eq!(
            store.put_once("a", Bytes::from_static(b"12345")).await,
            Ok(Put::Stored)
        );
        assert_eq!(store.get("a", 4).await, Err(ArtifactError::TooLarge));
    }

    #[test]
    fn a_place_that_cannot_be_used_says_why() {
        let open = |url: &str| ObjectArtifacts::open(url, []).map(drop);
        assert!(matches!(open("bucket"), Err(OpenError::Url(_))));
        assert!(matches!(open("memory:///"), Err(OpenError::Url(_))));
        assert!(matches!(
            open("s3://key:secret@bucket/prefix"),
            Err(OpenError::Credentials)
        ));
    }
}
