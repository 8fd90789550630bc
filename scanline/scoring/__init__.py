"""Reads files into a table, a row a file, in the order of the files and in bounded memory.

    path,digit,confidence,status,reason,error,model
    scans/0001.png,7,0.998541,ok,,,3850cffb5f38
    scans/0002.png,,,error,,the image is damaged or cut short: image file is truncated (3 bytes not processed),

The way of the data, a module each: `inputs` and `containers` find what is to be read, an `engine` reads it (`local`,
`remote` or `cluster`), `rows` and `formats` make a file of the answers, `journal` keeps what is done through a kill,
`tally` counts. `score` is the loop.
"""
