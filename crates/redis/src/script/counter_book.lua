local function book_counter(key, at, refund)
  local _, cost, width, epochs, charged_in = unpack('<ddddd', at, 4)
  if refund then
    local head = call('GETRANGE', key, 0, 23)
    if head == '' then return end
    local epoch, sum, units = unpack('<ddd', head)
    -- Only in the epoch that they were charged in.
    if charged_in == epoch then
      units = math.max(units - cost, 0)
    elseif charged_in < epoch and epoch - charged_in <= epochs then
      local offset = 24 + charged_in % epochs * 8
      local filed = unpack('<d', call('GETRANGE', key, offset, offset + 7))
      local rest = math.max(filed - cost, 0)
      sum = sum - filed + rest
      call('SETRANGE', key, offset, pack('<d', rest))
    end
    call('SETRANGE', key, 0, pack('<ddd', epoch, sum, units))
  else
    local _, epoch, sum, units, ring = turned(key, width, epochs)
    if ring then
      local keep = (epoch + epochs + 1) * width - now
      call('SET', key, whole(epoch, sum, units + cost, ring, epochs), 'PXAT', expiry(keep))
    else
      call('SETRANGE', key, 0, pack('<ddd', epoch, sum, units + cost))
    end
  end
end
