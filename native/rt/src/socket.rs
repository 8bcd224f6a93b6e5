//! Non-blocking stream sockets and listening sockets.
//!
//! Outcomes are enums rather than `io::Result`, so that a handler has to say what it does about each.

use std::io::IoSlice;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{
    self, AddressFamily, RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown, SocketAddrAny,
    SocketAddrUnix, SocketFlags, SocketType, ipproto, sockopt,
};

const NEW: SocketFlags = SocketFlags::NONBLOCK.union(SocketFlags::CLOEXEC);

/// The outcome of a receive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received {
    /// At least one byte.
    Data(usize),
    /// The peer has closed its sending side.
    Eof,
    WouldBlock,
    Error(Errno),
}

/// The outcome of a send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// Bytes taken by the kernel: maybe not all.
    Bytes(usize),
    WouldBlock,
    Error(Errno),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShutdownSide {
    Read,
    Write,
    Both,
}

impl From<ShutdownSide> for Shutdown {
    fn from(side: ShutdownSide) -> Self {
        match side {
            ShutdownSide::Read => Self::Read,
            ShutdownSide::Write => Self::Write,
            ShutdownSide::Both => Self::Both,
        }
    }
}

/// TCP keep-alive; `None` leaves the system's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Keepalive {
    pub probes: Option<u32>,
    pub time: Option<Duration>,
    pub interval: Option<Duration>,
}

/// How to open an upstream connection.
#[derive(Debug, Clone, Copy, Default)]
pub struct ConnectOptions {
    /// Local address; port 0 lets the kernel choose.
    pub bind: Option<SocketAddr>,
    /// The local address need not be one of this machine's.
    pub freebind: bool,
    pub keepalive: Option<Keepalive>,
}

/// Why a connection could not even be begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectError {
    pub errno: Errno,
    /// The local address could not be had.
    pub binding: bool,
}

impl From<Errno> for ConnectError {
    fn from(errno: Errno) -> Self {
        Self {
            errno,
            binding: false,
        }
    }
}

/// A connected, or connecting, stream socket. Dropping it closes it.
#[derive(Debug)]
pub struct Socket(OwnedFd);

impl Socket {
    /// Wraps a descriptor that is a non-blocking stream socket.
    pub const fn from_fd(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// Starts to connect, with TCP_NODELAY set. `true`: connected already; else wait until the socket is writable
    /// and ask [`Socket::take_error`].
    pub fn connect(
        address: SocketAddr,
        options: &ConnectOptions,
    ) -> Result<(Self, bool), ConnectError> {
        let socket =
            net::socket_with(family(address), SocketType::STREAM, NEW, Some(ipproto::TCP))?;
        sockopt::set_tcp_nodelay(&socket, true)?;
        if let Some(keepalive) = options.keepalive {
            set_keepalive(&socket, keepalive)?;
        }
        if let Some(bind) = options.bind {
            if options.freebind {
                if bind.is_ipv6() {
                    sockopt::set_ipv6_freebind(&socket, true)?;
                } else {
                    sockopt::set_ip_freebind(&socket, true)?;
                }
            }
            net::bind(&socket, &bind).map_err(|errno| ConnectError {
                errno,
                binding: true,
            })?;
        }
        let connected = started(net::connect(&socket, &address))?;
        Ok((Self(socket), connected))
    }

    /// Connects to a Unix domain socket.
    pub fn connect_unix(path: &str) -> Result<(Self, bool), Errno> {
        let address = match path.strip_prefix('@') {
            Some(name) => SocketAddrUnix::new_abstract_name(name.as_bytes())?,
            None => SocketAddrUnix::new(path)?,
        };
        let socket = net::socket_with(AddressFamily::UNIX, SocketType::STREAM, NEW, None)?;
        let connected = started(net::connect(&socket, &address))?;
        Ok((Self(socket), connected))
    }

    /// The pending error (SO_ERROR), which reading clears: the result of a connect.
    pub fn take_error(&self) -> Option<Errno> {
        match sockopt::socket_error(&self.0) {
            Ok(Ok(())) => None,
            Ok(Err(error)) | Err(error) => Some(error),
        }
    }

    #[inline]
    pub fn recv(&self, into: &mut [u8]) -> Received {
        self.receive(into, RecvFlags::empty())
    }

    /// Looks at what can be received and leaves it there.
    pub fn peek(&self, into: &mut [u8]) -> Received {
        self.receive(into, RecvFlags::PEEK)
    }

    #[inline]
    fn receive(&self, into: &mut [u8], flags: RecvFlags) -> Received {
        if into.is_empty() {
            return Received::WouldBlock;
        }
        loop {
            match net::recv(&self.0, &mut *into, flags) {
                Ok((0, _)) => return Received::Eof,
                Ok((count, _)) => return Received::Data(count),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Received::WouldBlock,
                Err(error) => return Received::Error(error),
            }
        }
    }

    /// Sends without raising SIGPIPE.
    #[inline]
    pub fn send(&self, bytes: &[u8]) -> Sent {
        loop {
            match net::send(&self.0, bytes, SendFlags::NOSIGNAL) {
                Ok(count) => return Sent::Bytes(count),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Sent::WouldBlock,
                Err(error) => return Sent::Error(error),
            }
        }
    }

    /// Sends several pieces with one system call, without raising SIGPIPE.
    #[inline]
    pub fn send_vectored(&self, pieces: &[IoSlice<'_>]) -> Sent {
        loop {
            match net::sendmsg(
                &self.0,
                pieces,
                &mut SendAncillaryBuffer::default(),
                SendFlags::NOSIGNAL,
            ) {
                Ok(count) => return Sent::Bytes(count),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Sent::WouldBlock,
                Err(error) => return Sent::Error(error),
            }
        }
    }

    pub fn shutdown(&self, side: ShutdownSide) -> Result<(), Errno> {
        net::shutdown(&self.0, side.into())
    }

    /// Closing will send a reset and drop what is unsent (SO_LINGER 0).
    pub fn reset_on_close(&self) -> Result<(), Errno> {
        sockopt::set_socket_linger(&self.0, Some(Duration::ZERO))
    }

    pub fn set_nodelay(&self, on: bool) -> Result<(), Errno> {
        sockopt::set_tcp_nodelay(&self.0, on)
    }

    pub fn set_keepalive(&self, keepalive: Keepalive) -> Result<(), Errno> {
        set_keepalive(&self.0, keepalive)
    }

    pub fn local_addr(&self) -> Result<SocketAddr, Errno> {
        inet(net::getsockname(&self.0)?)
    }

    pub fn peer_addr(&self) -> Result<SocketAddr, Errno> {
        match net::getpeername(&self.0)? {
            Some(address) => inet(address),
            None => Err(Errno::NOTCONN),
        }
    }

    /// Where the connection was headed before the kernel's NAT redirected it here (SO_ORIGINAL_DST). `local` is the
    /// socket's own address and tells the family.
    pub fn original_dst(&self, local: SocketAddr) -> Result<SocketAddr, Errno> {
        match local {
            SocketAddr::V4(_) => sockopt::ip_original_dst(&self.0).map(SocketAddr::V4),
            SocketAddr::V6(_) => sockopt::ipv6_original_dst(&self.0).map(|mut address| {
                // The kernel fills in a flow label that no configured address has.
                address.set_flowinfo(0);
                SocketAddr::V6(address)
            }),
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// How to open a listening socket.
#[derive(Debug, Clone, Copy)]
pub struct ListenOptions {
    /// SO_REUSEPORT: one socket per worker.
    pub reuse_port: bool,
    pub backlog: u32,
    pub freebind: bool,
    pub transparent: bool,
}

impl Default for ListenOptions {
    fn default() -> Self {
        Self {
            reuse_port: true,
            backlog: 128,
            freebind: false,
            transparent: false,
        }
    }
}

/// An accepted connection.
#[derive(Debug)]
pub struct Accepted {
    pub socket: Socket,
    pub remote: SocketAddr,
}

/// A listening socket.
#[derive(Debug)]
pub struct Listening(OwnedFd);

impl Listening {
    /// Binds and listens. Accepted sockets inherit TCP_NODELAY. An IPv6 socket takes no IPv4 connections.
    pub fn bind(address: SocketAddr, options: &ListenOptions) -> Result<Self, Errno> {
        let socket =
            net::socket_with(family(address), SocketType::STREAM, NEW, Some(ipproto::TCP))?;
        sockopt::set_socket_reuseaddr(&socket, true)?;
        if options.reuse_port {
            sockopt::set_socket_reuseport(&socket, true)?;
        }
        if address.is_ipv6() {
            sockopt::set_ipv6_v6only(&socket, true)?;
        }
        if options.freebind {
            if address.is_ipv6() {
                sockopt::set_ipv6_freebind(&socket, true)?;
            } else {
                sockopt::set_ip_freebind(&socket, true)?;
            }
        }
        if options.transparent {
            set_transparent(&socket, address.is_ipv6())?;
        }
        sockopt::set_tcp_nodelay(&socket, true)?;
        net::bind(&socket, &address)?;
        net::listen(&socket, i32::try_from(options.backlog).unwrap_or(i32::MAX))?;
        Ok(Self(socket))
    }

    /// Wraps a listening descriptor handed over by another process.
    pub const fn from_fd(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// Another descriptor of the same socket.
    pub fn try_clone(&self) -> Result<Self, Errno> {
        Ok(Self(rustix::io::fcntl_dupfd_cloexec(&self.0, 3)?))
    }

    /// The next connection; `Errno::AGAIN` when there is none.
    pub fn accept(&self) -> Result<Accepted, Errno> {
        loop {
            match net::acceptfrom_with(&self.0, NEW) {
                Ok((fd, remote)) => {
                    let remote = remote
                        .and_then(|remote| inet(remote).ok())
                        .unwrap_or(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0));
                    return Ok(Accepted {
                        socket: Socket(fd),
                        remote,
                    });
                }
                // The connection went away while it was queued.
                Err(Errno::INTR | Errno::CONNABORTED | Errno::PROTO) => {}
                Err(error) => return Err(error),
            }
        }
    }

    pub fn local_addr(&self) -> Result<SocketAddr, Errno> {
        inet(net::getsockname(&self.0)?)
    }
}

impl AsFd for Listening {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

const fn family(address: SocketAddr) -> AddressFamily {
    match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    }
}

fn inet(address: SocketAddrAny) -> Result<SocketAddr, Errno> {
    SocketAddr::try_from(address).map_err(|_| Errno::AFNOSUPPORT)
}

const fn started(result: Result<(), Errno>) -> Result<bool, Errno> {
    match result {
        Ok(()) => Ok(true),
        Err(Errno::INPROGRESS) => Ok(false),
        Err(error) => Err(error),
    }
}

fn set_keepalive(socket: &OwnedFd, keepalive: Keepalive) -> Result<(), Errno> {
    sockopt::set_socket_keepalive(socket, true)?;
    if let Some(probes) = keepalive.probes {
        sockopt::set_tcp_keepcnt(socket, probes)?;
    }
    if let Some(time) = keepalive.time {
        sockopt::set_tcp_keepidle(socket, time)?;
    }
    if let Some(interval) = keepalive.interval {
        sockopt::set_tcp_keepintvl(socket, interval)?;
    }
    Ok(())
}

/// IP_TRANSPARENT, which rustix has no wrapper for.
fn set_transparent(socket: &OwnedFd, ipv6: bool) -> Result<(), Errno> {
    let (level, name) = if ipv6 {
        (libc::SOL_IPV6, libc::IPV6_TRANSPARENT)
    } else {
        (libc::SOL_IP, libc::IP_TRANSPARENT)
    };
    let on: libc::c_int = 1;
    #[allow(unsafe_code, reason = "setsockopt has no safe wrapper for this option")]
    // SAFETY: the descriptor is open for the duration of the call, and the option value is a C int that lives on this
    // frame and whose exact size is passed.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::INVAL))
    }
}

#[cfg(test)]
mod tests;
