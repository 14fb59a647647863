local call, pack, unpack, byte = redis.call, struct.pack, struct.unpack, string.byte
local time = call('TIME')
local now = time[1] * 1000000 + time[2]
local lifetime = function(micros) return (micros - micros % 1000) / 1000 + 2 end
