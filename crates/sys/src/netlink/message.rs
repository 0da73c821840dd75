//! Requests and their answers: acknowledgements with the kernel's own words, and dumps.

use std::io;
use std::sync::atomic::{AtomicU32, Ordering};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
    NlasIterator,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use crate::error::Context;
use crate::namespace::{Namespace, enter_fd, open_own};
use crate::{Cause, Error, Result};

/// An attribute of an extended acknowledgement: the text (linux/netlink.h).
const NLMSGERR_ATTR_MSG: u16 = 1;
/// Length of a netlink header, which comes back in front of these attributes.
const HEADER: usize = 16;

/// A socket for links, addresses and routes of one network namespace.
#[derive(Debug)]
pub struct Route {
    socket: Socket,
    sequence: AtomicU32,
}

impl Route {
    /// Opens a socket in the network namespace of the calling thread.
    pub fn open() -> Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE).at("socket", "netlink")?;
        socket.bind_auto().at("bind", "netlink")?;
        socket.connect(&SocketAddr::new(0, 0)).at("connect", "netlink")?;
        // Errors then come with a text, and without a copy of the request. Both are optional on old kernels.
        let _ = socket.set_ext_ack(true);
        let _ = socket.set_cap_ack(true);
        Ok(Self { socket, sequence: AtomicU32::new(0) })
    }

    /// Opens a socket in another network namespace. The calling thread goes there and back: not for asynchronous code.
    pub fn open_in(namespace: std::os::fd::BorrowedFd<'_>) -> Result<Self> {
        use std::os::fd::AsFd;
        let own = open_own(Namespace::Network)?;
        enter_fd(namespace, Namespace::Network)?;
        let opened = Self::open();
        enter_fd(own.as_fd(), Namespace::Network)?;
        opened
    }

    /// Sends a request and waits for its acknowledgement.
    pub(super) fn request(
        &self,
        message: RouteNetlinkMessage,
        flags: u16,
        call: &'static str,
        object: &str,
    ) -> Result<()> {
        self.exchange(message, flags | NLM_F_REQUEST | NLM_F_ACK, call, object).map(drop)
    }

    /// Sends a query and collects all that it lists.
    pub(super) fn dump(
        &self,
        message: RouteNetlinkMessage,
        object: &str,
    ) -> Result<Vec<RouteNetlinkMessage>> {
        self.exchange(message, NLM_F_REQUEST | NLM_F_DUMP, "list", object)
    }

    fn exchange(
        &self,
        message: RouteNetlinkMessage,
        flags: u16,
        call: &'static str,
        object: &str,
    ) -> Result<Vec<RouteNetlinkMessage>> {
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        header.sequence_number = sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes, 0).at(call, object)?;
        let mut listed = Vec::new();
        loop {
            let (datagram, _) = self.socket.recv_from_full().at(call, object)?;
            let mut rest = datagram.as_slice();
            while rest.len() >= HEADER {
                let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                    .map_err(|error| Error::invalid(call, object, error.to_string()))?;
                // Messages are aligned to four bytes.
                let length = (message.header.length as usize).next_multiple_of(4).max(HEADER);
                rest = rest.get(length..).unwrap_or_default();
                if message.header.sequence_number != sequence {
                    continue;
                }
                match message.payload {
                    NetlinkPayload::InnerMessage(message) => listed.push(message),
                    NetlinkPayload::Done(done) if done.code < 0 => {
                        let cause = Cause::Os(io::Error::from_raw_os_error(done.code.abs()));
                        return Err(Error::new(call, object, cause));
                    }
                    NetlinkPayload::Done(_) => return Ok(listed),
                    NetlinkPayload::Error(error) => {
                        let Some(code) = error.code else { return Ok(listed) };
                        return Err(explain(call, object, code.get(), &error.header));
                    }
                    _ => {}
                }
            }
        }
    }
}

fn explain(call: &'static str, object: &str, code: i32, answer: &[u8]) -> Error {
    let errno = io::Error::from_raw_os_error(code.abs());
    let attributes = NlasIterator::new(answer.get(HEADER..).unwrap_or_default());
    let text = attributes.flatten().find(|attribute| attribute.kind() == NLMSGERR_ATTR_MSG).map(
        |attribute| String::from_utf8_lossy(attribute.value()).trim_end_matches('\0').to_owned(),
    );
    let cause = match text {
        Some(text) if !text.is_empty() => Cause::Explained { errno, text },
        _ => Cause::Os(errno),
    };
    Error::new(call, object, cause)
}
