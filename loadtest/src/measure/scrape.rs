//! A server's own figures, from its Prometheus page.

use std::{
    io::{self, Read, Write},
    net::{TcpStream, ToSocketAddrs},
    time::Duration,
};

use anyhow::{Context, ensure};

/// How long connecting, and each read and write, may take.
const PATIENCE: Duration = Duration::from_secs(1);
/// No page is read further.
const LONGEST: u64 = 4 << 20;

/// A page of figures.
#[derive(Debug, Clone)]
pub struct Scraper {
    authority: String,
    path: String,
}

/// What is read of a page; `None` where the server does not say.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Scraped {
    /// CPU seconds used since its start.
    pub cpu_seconds: Option<f64>,
    /// Bytes of resident memory.
    pub resident: Option<f64>,
    /// Connections open now.
    pub connections: Option<f64>,
    /// The most bytes that waited for one connection since the last look.
    pub queue_high_water: Option<f64>,
}

impl Scraper {
    /// The page at `http://host:port[/path]`; `/metrics` if there is no path.
    ///
    /// # Errors
    /// Another address.
    pub fn new(url: &str) -> anyhow::Result<Self> {
        let rest =
            url.strip_prefix("http://").with_context(|| format!("{url}: expected http://host:port"))?;
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let plain = !rest.contains(|c: char| c.is_ascii_control() || c == ' ');
        ensure!(plain && authority.contains(':'), "{url}: expected http://host:port");
        let path = if path.len() > 1 { path } else { "/metrics" };
        Ok(Self { authority: authority.to_owned(), path: path.to_owned() })
    }

    /// Reads the page.
    ///
    /// # Errors
    /// When it cannot be read within a few seconds.
    pub fn scrape(&self) -> io::Result<Scraped> {
        let address = self.authority.to_socket_addrs()?.next().ok_or(io::ErrorKind::AddrNotAvailable)?;
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let Self { authority, path } = self;
        // HTTP 1.0, so that the page comes in one piece and ends with the connection.
        stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {authority}\r\n\r\n").as_bytes())?;
        let mut page = String::new();
        stream.take(LONGEST).read_to_string(&mut page)?;
        let status = page.split(' ').nth(1).unwrap_or_default();
        if status != "200" {
            return Err(io::Error::other(format!("the metrics page answers with status {status:?}")));
        }
        Ok(Scraped::of(&page))
    }
}

impl Scraped {
    fn of(page: &str) -> Self {
        let mut found = Self::default();
        for line in page.lines() {
            let Some((name, value)) = line.rsplit_once(' ') else { continue };
            let place = match name {
                "process_cpu_seconds_total" => &mut found.cpu_seconds,
                "process_resident_memory_bytes" => &mut found.resident,
                "signaling_connections" => &mut found.connections,
                "signaling_outbox_high_water_bytes" => &mut found.queue_high_water,
                _ => continue,
            };
            *place = value.parse().ok();
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figures_are_found_among_others() {
        let page = "HTTP/1.0 200 OK\r\n\r\n# TYPE signaling_connections gauge\nsignaling_connections 7\n\
                    process_resident_memory_bytes 1.5e7\nsignaling_connections_opened_total 9\nbroken\n";
        let expected = Scraped {
            connections: Some(7.0),
            resident: Some(1.5e7),
            cpu_seconds: None,
            queue_high_water: None,
        };
        assert_eq!(Scraped::of(page), expected);
    }

    #[test]
    fn an_address_without_a_port_or_over_tls_is_refused() {
        for url in ["https://h:1/", "http://h", "http://h:1/ x", "h:1"] {
            assert!(Scraper::new(url).is_err(), "{url}");
        }
        assert_eq!(Scraper::new("http://h:1").unwrap().path, "/metrics");
    }
}
