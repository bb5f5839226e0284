//! A gateway under attack, and a good device that goes on sending and has to notice nothing.

use super::{Ask, Client, Gateway, Load, Protocol, Setup};

/// Bytes that an attack may cost at its worst: none of them may hold more than a few connections' bounds.
const MEMORY_BYTES_MAX: u64 = 96 << 20;

pub struct Siege {
    pub gateway: Gateway,
    good: Load,
    /// Clients that send the load.
    _clients: [Client; 3],
    memory_before: u64,
}

/// A device that these tests do not attack with: it has no limits, all others have those that are the default.
const GOOD: &str = "good";

/// Device that connects anew: it has tokens, whatever another newcomer has spent.
const VISITOR: &str = "visitor";

impl Siege {
    pub fn begin(setup: Setup) -> Self {
        let classes = format!("{GOOD}=0/1");
        let gateway = setup
            .set("FOREBAY_DEVICE_CLASSES", classes)
            .set("FOREBAY_DEVICE_BYTE_RATE", 0)
            .set("FOREBAY_ADDRESS_RATE", 0)
            .start();
        let device = gateway.device(GOOD);
        let clients = Protocol::ALL.map(|protocol| Client::open(protocol, &gateway, &device));
        let good = Load::start(GOOD, &clients, 0);
        good.wait_for(204, 30);
        let memory_before = gateway.memory("VmRSS");
        Self {
            gateway,
            good,
            _clients: clients,
            memory_before,
        }
    }

    /// The good device is answered, now, on the connections that it has.
    pub fn good_device_is_served(&self) {
        let before = self.good.seen(204);
        self.good.wait_for(204, before + 30);
    }

    /// The good device can connect anew.
    pub fn good_device_can_connect(&self) {
        for protocol in Protocol::ALL {
            let client = Client::open(protocol, &self.gateway, &self.gateway.device(VISITOR));
            assert_eq!(client.send(&Ask::post("1")).status, 204, "{protocol}");
        }
    }

    /// Every request of the good device was answered 204, nothing else is in the sink, and memory was bounded.
    pub fn end(self) {
        self.good_device_is_served();
        self.good_device_can_connect();
        let outcomes = self.good.stop();
        let (sent, accepted) = (
            outcomes.senders.iter().flatten().count(),
            outcomes.count(204),
        );
        assert_eq!(
            sent, accepted,
            "the good device noticed: {:?}",
            outcomes.senders
        );
        let lines = self.gateway.files("telemetry");
        let of = |device: &str| {
            lines
                .iter()
                .filter(|line| line.text("device") == device)
                .count()
        };
        assert_eq!(of(GOOD), accepted);
        assert_eq!(
            lines.len(),
            accepted + of(VISITOR) + of("newcomer"),
            "something of the attack is in the sink"
        );
        let grown = self
            .gateway
            .memory("VmHWM")
            .saturating_sub(self.memory_before);
        assert!(
            grown < MEMORY_BYTES_MAX,
            "the gateway grew by {} MiB",
            grown >> 20
        );
        println!(
            "memory: {} MiB before, grown by {} MiB at most",
            self.memory_before >> 20,
            grown >> 20
        );
    }
}
