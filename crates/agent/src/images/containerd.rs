//! The calls of containerd's API that registering needs.

use std::time::Duration;

use camino::Utf8Path;
use futures::stream;
use prost::Message;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

use super::messages::{
    CommitSnapshot, ContentInfo, CreateLease, DeleteLease, Descriptor, Empty, FieldMask, Image,
    Images, Labels, Mounts, PrepareSnapshot, SnapshotKey, UpdateContent, WithImage, WriteContent,
};
use super::{Error, NAMESPACE};

const SNAPSHOTTER: &str = "overlayfs";
/// For one call: each is small, but may wait for a busy disk.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection, and the lease that keeps what is made through it from being collected.
#[derive(Debug, Clone)]
pub(super) struct Containerd {
    grpc: Grpc<Channel>,
    lease: MetadataValue<Ascii>,
    pub(super) lease_id: String,
}

impl Containerd {
    /// Connects; the lease is made by [`Self::create_lease`].
    pub(super) async fn connect(socket: &Utf8Path, lease_id: String) -> Result<Self, Error> {
        let unreachable = |source| Error::Unreachable { socket: socket.to_owned(), source };
        let endpoint = Endpoint::from_shared(format!("unix://{socket}")).map_err(unreachable)?;
        // Connecting needs no limit: a Unix socket takes a connection at once or, with a full backlog, refuses it.
        let channel = endpoint.timeout(CALL_TIMEOUT).connect().await.map_err(unreachable)?;
        let lease = MetadataValue::try_from(&lease_id).expect("the id is ASCII");
        Ok(Self { grpc: Grpc::new(channel), lease, lease_id })
    }

    pub(super) async fn create_lease(&self, expires: String) -> Result<(), Error> {
        let labels = Labels::from([("containerd.io/gc.expire".to_owned(), expires)]);
        let request = CreateLease { id: self.lease_id.clone(), labels };
        let path = "/containerd.services.leases.v1.Leases/Create";
        let _: Empty = self.call(path, request).await.map_err(refused("make a lease"))?;
        Ok(())
    }

    pub(super) async fn delete_lease(&self) -> Result<(), Error> {
        let request = DeleteLease { id: self.lease_id.clone() };
        let path = "/containerd.services.leases.v1.Leases/Delete";
        let _: Empty = self.call(path, request).await.map_err(refused("delete a lease"))?;
        Ok(())
    }

    /// Stores a blob with these labels.
    pub(super) async fn ensure_blob(
        &self,
        digest: &str,
        data: Vec<u8>,
        labels: Labels,
    ) -> Result<(), Error> {
        let request = WriteContent {
            action: 2,
            reference: format!("{}-{digest}", self.lease_id),
            total: i64::try_from(data.len()).unwrap_or(i64::MAX),
            expected: digest.to_owned(),
            data,
            labels: labels.clone(),
        };
        let written = self.write(request).await;
        match written {
            Err(status) if status.code() == Code::AlreadyExists => {
                let paths = labels.keys().map(|label| format!("labels.{label}")).collect();
                let info = ContentInfo { digest: digest.to_owned(), labels };
                let request =
                    UpdateContent { info: Some(info), update_mask: Some(FieldMask { paths }) };
                let path = "/containerd.services.content.v1.Content/Update";
                let _: Empty = self
                    .call(path, request)
                    .await
                    .map_err(refused(&format!("label the blob {digest}")))?;
                Ok(())
            }
            other => other.map_err(refused(&format!("store the blob {digest}"))),
        }
    }

    async fn write(&self, request: WriteContent) -> Result<(), Status> {
        let mut grpc = self.ready().await?;
        let path = PathAndQuery::from_static("/containerd.services.content.v1.Content/Write");
        let codec = ProstCodec::<WriteContent, Empty>::default();
        let request = self.request(stream::iter([request]));
        let mut answers = grpc.streaming(request, path, codec).await?.into_inner();
        while answers.message().await?.is_some() {}
        Ok(())
    }

    pub(super) async fn has_snapshot(&self, key: &str) -> Result<bool, Error> {
        let request = SnapshotKey { snapshotter: SNAPSHOTTER.to_owned(), key: key.to_owned() };
        let path = "/containerd.services.snapshots.v1.Snapshots/Stat";
        match self.call::<_, Empty>(path, request).await {
            Ok(_) => Ok(true),
            Err(status) if status.code() == Code::NotFound => Ok(false),
            Err(status) => Err(refused(&format!("look for the snapshot {key}"))(status)),
        }
    }

    /// Makes a snapshot that can be written to; returns its mounts.
    pub(super) async fn prepare(&self, key: &str, parent: &str) -> Result<Mounts, Error> {
        let request = PrepareSnapshot {
            snapshotter: SNAPSHOTTER.to_owned(),
            key: key.to_owned(),
            parent: parent.to_owned(),
        };
        let path = "/containerd.services.snapshots.v1.Snapshots/Prepare";
        self.call(path, request).await.map_err(refused(&format!("prepare the snapshot {key}")))
    }

    /// Commits a snapshot; false: somebody else committed that name first.
    pub(super) async fn commit(&self, key: &str, name: &str) -> Result<bool, Error> {
        let request = CommitSnapshot {
            snapshotter: SNAPSHOTTER.to_owned(),
            name: name.to_owned(),
            key: key.to_owned(),
        };
        let path = "/containerd.services.snapshots.v1.Snapshots/Commit";
        match self.call::<_, Empty>(path, request).await {
            Ok(_) => Ok(true),
            Err(status) if status.code() == Code::AlreadyExists => Ok(false),
            Err(status) => Err(refused(&format!("commit the snapshot {name}"))(status)),
        }
    }

    pub(super) async fn remove_snapshot(&self, key: &str) -> Result<(), Error> {
        let request = SnapshotKey { snapshotter: SNAPSHOTTER.to_owned(), key: key.to_owned() };
        let path = "/containerd.services.snapshots.v1.Snapshots/Remove";
        let _: Empty = self
            .call(path, request)
            .await
            .map_err(refused(&format!("remove the snapshot {key}")))?;
        Ok(())
    }

    pub(super) async fn images(&self) -> Result<Vec<Image>, Error> {
        let path = "/containerd.services.images.v1.Images/List";
        let list: Images = self.call(path, Empty {}).await.map_err(refused("list images"))?;
        Ok(list.images)
    }

    /// Makes the image record what is given, whatever was there under its name.
    pub(super) async fn ensure_image(
        &self,
        name: &str,
        target: Descriptor,
        labels: Labels,
    ) -> Result<(), Error> {
        let image = Image { name: name.to_owned(), labels, target: Some(target) };
        let request = WithImage { image: Some(image) };
        let path = "/containerd.services.images.v1.Images/Create";
        let created = self.call::<_, Empty>(path, request.clone()).await;
        let done = match created {
            Err(status) if status.code() == Code::AlreadyExists => {
                let path = "/containerd.services.images.v1.Images/Update";
                self.call::<_, Empty>(path, request).await
            }
            other => other,
        };
        done.map(drop).map_err(refused(&format!("record the image {name}")))
    }

    async fn call<Q, A>(&self, path: &'static str, request: Q) -> Result<A, Status>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let mut grpc = self.ready().await?;
        let (path, codec) = (PathAndQuery::from_static(path), ProstCodec::<Q, A>::default());
        Ok(grpc.unary(self.request(request), path, codec).await?.into_inner())
    }

    async fn ready(&self) -> Result<Grpc<Channel>, Status> {
        let mut grpc = self.grpc.clone();
        grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        Ok(grpc)
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let metadata = request.metadata_mut();
        metadata.insert("containerd-namespace", MetadataValue::from_static(NAMESPACE));
        metadata.insert("containerd-lease", self.lease.clone());
        request
    }
}

fn refused(what: &str) -> impl FnOnce(Status) -> Error {
    let what = what.to_owned();
    move |status| Error::Refused { what, source: Box::new(status) }
}
