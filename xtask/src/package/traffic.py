"""`send PORT...`: numbered datagrams to 192.0.2.1, to each port two hundred a second, until
ended. `count PORT DIRECTORY`: keeps in DIRECTORY/PORT how many came, and the widest gap between
two of them in milliseconds."""
import os
import socket
import sys
import time

if sys.argv[1] == "send":
    out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    while True:
        for port in sys.argv[2:]:
            try:
                out.sendto(b"x", ("192.0.2.1", int(port)))
            except OSError:  # refused
                pass
        time.sleep(0.005)

port, directory = sys.argv[2:]
ear = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
ear.bind(("192.0.2.1", int(port)))
ear.settimeout(0.05)
count, gap, last = 0, 0, None
while True:
    try:
        ear.recv(16)
        now = time.monotonic()
        gap = max(gap, now - last) if last is not None else gap
        count, last = count + 1, now
    except TimeoutError:
        pass
    with open(f"{directory}/{port}.part", "w") as file:
        file.write(f"{count} {int(gap * 1000)}\n")
    os.rename(f"{directory}/{port}.part", f"{directory}/{port}")
