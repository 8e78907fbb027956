import ServiceSupport
import Testing

@Suite struct ConnectionRoomTests {
    @Test(arguments: [
        (20_000, 12_000), (14_048, 12_000), (14_047, 11_999), (4_096, 2_048), (2_049, 16), (256, 16), (0, 16),
    ])
    func connectionsFitTheLimit(limit: Int, connections: Int) throws {
        let room = ConnectionRoom(wanted: 12_000, reserved: 2_048, limit: limit)
        #expect(room.connectionsMax == connections)
        #expect((room.warning == nil) == (connections == 12_000))
        if let warning = room.warning {
            #expect(warning.contains("\(connections) connections") && warning.contains("\(limit) file"))
            #expect(warning.contains("allow it 14048"))
        }
    }

    @Test func noLimitAtAll() {
        #expect(ConnectionRoom(wanted: 12_000, reserved: 2_048, limit: .max).warning == nil)
        #expect(ConnectionRoom(wanted: 3, reserved: 0).connectionsMax == 3)
    }
}
