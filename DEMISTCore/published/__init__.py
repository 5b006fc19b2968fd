"""Published models in the formats they were published in: read exactly, refused in a sentence where they do not fit.

- :mod:`.keys`: names of weights, of GenerativeModels' time and of today's MONAI;
- :mod:`.layouts`: the networks known by name;
- :mod:`.checkpoints`: tensors from files, nothing ever executed;
- :mod:`.ddim`: noise schedule and sampler as the files' configurations mean them;
- :mod:`.configuration`: a MONAI bundle's configuration, read and written;
- :mod:`.folder`: a MONAI bundle's folder, read and written;
- :mod:`.store`: our own folder, a delta over its autoencoder;
- :mod:`.transfer`: DEMIST's networks started from published ones;
- :mod:`.tools`: inspect, verify, convert, whatever the form.
"""
