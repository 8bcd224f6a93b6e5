//! What the backend and the forwarder share as servers: a listening socket that is polled, and what was accepted there.

use std::collections::HashMap;
use std::net::SocketAddr;

use tidegate_rt::{ListenOptions, Listening, Poller, Socket, Token};

/// More than any case opens at once.
const BACKLOG: u32 = 4096;

/// Listens; connections that wait are told under the token.
pub fn listen(poller: &Poller, address: SocketAddr, token: Token) -> Result<Listening, String> {
    let options = ListenOptions {
        reuse_port: false,
        backlog: BACKLOG,
        ..ListenOptions::default()
    };
    let listening = Listening::bind(address, &options).map_err(|error| error.to_string())?;
    poller
        .add_level(&listening, token, false)
        .map_err(|error| error.to_string())?;
    Ok(listening)
}

/// What became of the accepted sockets, by number.
#[derive(Debug)]
pub struct Accepted<T> {
    open: HashMap<u32, T>,
    last: u32,
}

impl<T> Default for Accepted<T> {
    fn default() -> Self {
        Self {
            open: HashMap::new(),
            last: 0,
        }
    }
}

impl<T> Accepted<T> {
    /// Accepts everything that waits; keeps what is made of a socket and its number, and closes it where that is nothing.
    pub fn take_in(
        &mut self,
        listening: &Listening,
        mut make: impl FnMut(Socket, u32) -> Option<T>,
    ) {
        while let Ok(accepted) = listening.accept() {
            self.last = self.last.wrapping_add(1);
            if let Some(made) = make(accepted.socket, self.last) {
                self.open.insert(self.last, made);
            }
        }
    }

    pub fn get_mut(&mut self, number: u32) -> Option<&mut T> {
        self.open.get_mut(&number)
    }

    pub fn remove(&mut self, number: u32) {
        self.open.remove(&number);
    }
}
