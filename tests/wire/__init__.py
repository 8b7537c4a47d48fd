"""Black box over sockets: what a client sees, compared with the contract, and with Valkey itself."""
