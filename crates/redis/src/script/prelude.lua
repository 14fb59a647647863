local call, pack, unpack, byte = redis.call, struct.pack, struct.unpack, string.byte
local time = call('TIME')
local now = time[1] * 1000000 + time[2]
-- When a state may go away that counts for so long.
local expiry = function(keep) return (now + keep - (now + keep) % 1000) / 1000 + 1 end
