//! Takes one RTMP publish, prints what the session says of it, and can record or refuse it.
//!
//! ```text
//! cargo run -p framehook-rtmp --example listen -- 127.0.0.1:1935 [record FILE | refuse CODE DESCRIPTION | cut CODE DESCRIPTION]
//! ffmpeg -re -f lavfi -i testsrc2 -c:v libx264 -f flv rtmp://127.0.0.1:1935/live/name
//! ```
//!
//! It is the smallest driver there is: one connection, blocking, no time-outs. The wire traces in `testdata/rtmp` and the
//! table of how encoders show a refusal were made with it.

use std::{
    fs::File,
    io::{self, Read, Write},
    net::TcpListener,
    time::Duration,
};

use framehook_rtmp::{Event, Limits, Phase, Session, handshake::RANDOM_BYTES};

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let [address, task @ ..] = arguments.as_slice() else {
        eprintln!("usage: listen ADDRESS [record FILE | refuse CODE DESCRIPTION | cut CODE DESCRIPTION]");
        std::process::exit(2);
    };
    let mut record = match task {
        ["record", path] => Some(File::create(path)?),
        _ => None,
    };
    let listener = TcpListener::bind(address)?;
    println!("listening on {}", listener.local_addr()?);
    let (mut socket, _) = listener.accept()?;

    let mut session = Session::new(Limits::default(), &[0x5a; RANDOM_BYTES]);
    let mut buffer = vec![0; 64 << 10];
    let mut entry_points = 0;
    loop {
        // An encoder that is done may reset the connection instead of closing it, because it leaves replies unread.
        let count = socket.read(&mut buffer).unwrap_or(0);
        if count == 0 {
            break;
        }
        if let Some(file) = &mut record {
            file.write_all(&buffer[..count])?;
        }
        let result = session.push(&buffer[..count], |event| match event {
            Event::Media(_) => {}
            Event::EntryPoint(unit) => {
                entry_points += 1;
                println!("entry point at {} ms, {} bytes", unit.dts_ms, unit.data.len());
            }
            other => println!("{other:?}"),
        });
        if let Err(error) = result {
            println!("error: {error}");
        }
        match *task {
            ["refuse", code, description] => {
                session.refuse_publish(code, description);
            }
            ["cut", code, description] if entry_points > 1 => session.cut(code, description),
            _ => {
                session.accept_publish();
            }
        }
        let _ = socket.write_all(session.output());
        session.consume_output(session.output().len());
        if session.phase() == Phase::Ended {
            // Closing with unread input makes a reset of it, which may overtake the status. So let the encoder close.
            socket.set_read_timeout(Some(Duration::from_secs(2)))?;
        }
    }
    println!("{:?} after {} bytes", session.phase(), session.received_bytes());
    Ok(())
}
